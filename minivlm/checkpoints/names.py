"""Tensor names and layouts, ours and theirs, as a table that is read in both directions.

A `*` in a name stands for one part between dots (a layer's number, `weight` or `bias`) and is the same on both sides:

    Same("text.blocks.*.norm_1.*", "text_model.encoder.layers.*.layer_norm1.*")

The table is driven by our names, which a model's config decides: each of them must be matched by exactly one row. So what a
folder must hold is known before it is opened, and whatever else it holds is an error too.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches

import torch
from torch import Tensor

from minivlm.checkpoints.errors import CheckpointError


@dataclass(frozen=True)
class Same:
    """One tensor here, the same tensor there."""

    ours: str
    theirs: str

    @property
    def names(self) -> tuple[str, ...]:
        """Their names."""
        return (self.theirs,)

    def join(self, theirs: Sequence[Tensor]) -> Tensor:
        """Their tensors as our one."""
        return theirs[0]

    def split(self, ours: Tensor) -> Sequence[Tensor]:
        """Our tensor as theirs, in the order of `names`."""
        return (ours,)


@dataclass(frozen=True)
class Stacked:
    """One tensor here, several there, which ours holds one below the other: `qkv` and q, k, v.

    `sizes`: their rows, where they are not all of one size. `heads`: for each of them the width of a head whose rotary pairs
    are half a head apart there, and side by side here; 0 where nothing is turned.
    """

    ours: str
    theirs: tuple[str, ...]
    sizes: tuple[int, ...] | None = None
    heads: tuple[int, ...] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Their names."""
        return self.theirs

    def join(self, theirs: Sequence[Tensor]) -> Tensor:
        """Their tensors as our one."""
        return torch.cat([_pairs(part, width, 2, -1) for part, width in zip(theirs, self._heads(), strict=True)])

    def split(self, ours: Tensor) -> Sequence[Tensor]:
        """Our tensor as theirs, in the order of `names`."""
        parts = ours.chunk(len(self.theirs)) if self.sizes is None else ours.split(self.sizes)
        return [_pairs(part, width, -1, 2) for part, width in zip(parts, self._heads(), strict=True)]

    def _heads(self) -> tuple[int, ...]:
        return (0,) * len(self.theirs) if self.heads is None else self.heads


def _pairs(rows: Tensor, width: int, *sides: int) -> Tensor:
    """Rows of heads of that width, seen as a table of `sides` inside each head, column by column instead of row by row."""
    if not width:
        return rows
    a, b = (width // 2 if side == -1 else side for side in sides)
    return rows.unflatten(0, (-1, a, b)).transpose(1, 2).flatten(0, 2)


@dataclass(frozen=True)
class Flat:
    """A convolution there whose step is its size, (out, *shape); here the linear layer that it is, (out, the rest)."""

    ours: str
    theirs: str
    shape: tuple[int, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Their names."""
        return (self.theirs,)

    def join(self, theirs: Sequence[Tensor]) -> Tensor:
        """Their tensors as our one."""
        return theirs[0].flatten(1)

    def split(self, ours: Tensor) -> Sequence[Tensor]:
        """Our tensor as theirs, in the order of `names`."""
        return (ours.unflatten(1, self.shape),)


@dataclass(frozen=True)
class Idle:
    """One tensor here; there the same one, and one that does nothing: an identity (or, for a bias, zeros) of its width.

    It stands in their files because their class always has it; it is written, and anything else in its place is an error.
    """

    ours: str
    theirs: tuple[str, str]

    @property
    def names(self) -> tuple[str, ...]:
        """Their names."""
        return self.theirs

    def join(self, theirs: Sequence[Tensor]) -> Tensor:
        """Their tensors as our one."""
        given, idle = theirs
        if not torch.equal(idle, _idle(given).to(idle.dtype)):
            kind, nothing = ("weight", "an identity") if given.ndim == 2 else ("bias", "zeros")
            raise CheckpointError(
                f"tensor {_fill(self.theirs[1], [kind])!r} does something: it is not {nothing}."
                " This course's class has no layer there, so it would compute other numbers."
            )
        return given

    def split(self, ours: Tensor) -> Sequence[Tensor]:
        """Our tensor as theirs, in the order of `names`."""
        return (ours, _idle(ours))


def _idle(beside: Tensor) -> Tensor:
    if beside.ndim == 1:
        return torch.zeros_like(beside)
    return torch.eye(len(beside), dtype=beside.dtype, device=beside.device)


@dataclass(frozen=True)
class Ones:
    """One tensor here; there the same one with `ones` axes of length one before its own."""

    ours: str
    theirs: str
    ones: int = 1

    @property
    def names(self) -> tuple[str, ...]:
        """Their names."""
        return (self.theirs,)

    def join(self, theirs: Sequence[Tensor]) -> Tensor:
        """Their tensors as our one."""
        return theirs[0].flatten(0, self.ones)

    def split(self, ours: Tensor) -> Sequence[Tensor]:
        """Our tensor as theirs, in the order of `names`."""
        return (ours[(None,) * self.ones],)


Row = Same | Stacked | Flat | Idle | Ones


@dataclass(frozen=True)
class Table:
    """A model's rows; what old files hold and nobody needs: buffers that count 0, 1, 2, ..., others of known value, and
    tensors that are another one once more (their names, both); and how the same tensors were called by other versions (how
    a name begins, as a pattern, and how it begins in the rows)."""

    rows: tuple[Row, ...]
    counters: tuple[str, ...] = ()
    constants: Mapping[str, Tensor] = field(default_factory=dict)
    aliases: tuple[tuple[str, str], ...] = ()
    copies: Mapping[str, str] = field(default_factory=dict)

    def __add__(self, other: "Table") -> "Table":
        """The tables of two parts as that of the whole."""
        return Table(
            self.rows + other.rows,
            self.counters + other.counters,
            {**self.constants, **other.constants},
            self.aliases + other.aliases,
            {**self.copies, **other.copies},
        )

    def prefixed(self, ours: str = "", theirs: str = "") -> "Table":
        """The table of a model that has this one inside: every name begins with more."""

        def longer(row: Row) -> Row:
            names = tuple(theirs + name for name in row.names)
            return replace(row, ours=ours + row.ours, theirs=names if isinstance(row.theirs, tuple) else names[0])

        return Table(
            tuple(longer(row) for row in self.rows),
            tuple(theirs + name for name in self.counters),
            {theirs + name: tensor for name, tensor in self.constants.items()},
            tuple((re.escape(theirs) + pattern, theirs + begins) for pattern, begins in self.aliases),
            {theirs + name: theirs + original for name, original in self.copies.items()},
        )

    def pairs(self, ours: Iterable[str]) -> list[tuple[str, Row, tuple[str, ...]]]:
        """For each of our names its row and their names.

        Raises:
            CheckpointError: a name that no row, or more than one, speaks of.
        """
        found = []
        for name in ours:
            matches = [(row, match) for row in self.rows if (match := _pattern(row.ours).fullmatch(name))]
            if len(matches) != 1:
                say = "no place" if not matches else "several places"
                raise CheckpointError(
                    f"tensor {name!r} has {say} in this file format. A class that was changed (a layer more, another name)"
                    " is no longer the released model; keep its weights with torch.save or safetensors instead."
                )
            row, match = matches[0]
            found.append((name, row, tuple(_fill(theirs, match.groups()) for theirs in row.names)))
        return found

    def to_theirs(self, ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Our tensors under their names, in their layout. Works on the meta device too, where it tells shapes."""
        theirs: dict[str, Tensor] = {}
        for name, row, names in self.pairs(ours):
            theirs |= zip(names, row.split(ours[name]), strict=True)
        return theirs

    def to_ours(self, theirs: Mapping[str, Tensor], expected: Mapping[str, Tensor], where: Mapping[str, str]) -> dict:
        """Their tensors under our names, in our layout: exactly those of `expected`.

        Args:
            theirs: all tensors of a folder.
            expected: tensors of our model, whose names and shapes count (they may be on the meta device).
            where: which file each of `theirs` comes from, for the messages.

        Raises:
            CheckpointError: a tensor is missing, unexpected, there under two names, of another shape, or not made of
                floating point numbers.
        """
        theirs, where = self._renamed(theirs, where)
        shapes = {name: tensor.shape for name, tensor in self.to_theirs(expected).items()}
        counters = [name for name in theirs if name in self.counters]
        for name in counters:
            _check_counter(name, theirs[name], where[name])
        constants = [name for name in theirs if name in self.constants]
        for name in constants:
            _check_constant(name, theirs[name], self.constants[name], where[name])
        copies = [name for name in theirs if name in self.copies]
        for name in copies:
            _check_copy(name, self.copies[name], theirs, where[name])
        missing = [name for name in shapes if name not in theirs]
        unexpected = [name for name in theirs if name not in {*shapes, *counters, *constants, *copies}]
        if missing or unexpected:
            raise CheckpointError(_difference(missing, unexpected, shapes, where))
        for name, shape in shapes.items():
            given = theirs[name]
            if given.shape != shape:
                raise CheckpointError(
                    f"{where[name]}: tensor {name!r} has shape {tuple(given.shape)}; expected {tuple(shape)}, according to"
                    " config.json. The two files do not belong together."
                )
            if not given.is_floating_point():
                raise CheckpointError(
                    f"{where[name]}: tensor {name!r} holds {given.dtype}; expected floating point numbers."
                    " Quantised checkpoints are not supported; use the original one."
                )
        return {name: row.join([theirs[n] for n in names]) for name, row, names in self.pairs(expected)}

    def _renamed(self, theirs: Mapping[str, Tensor], where: Mapping[str, str]) -> tuple[dict, dict]:
        """Tensors and their files under the names of the rows."""
        tensors, files = {}, {}
        for name, tensor in theirs.items():
            known = name
            for pattern, begins in self.aliases:
                known = re.sub(r"\A" + pattern, begins, known)
            if known in tensors:
                raise CheckpointError(
                    f"{where[name]}: tensor {name!r} is there twice, also as {known!r} or what other versions call it."
                    " Which one counts? Remove the other."
                )
            tensors[known], files[known] = tensor, where[name]
        return tensors, files


def _pattern(name: str) -> re.Pattern:
    return re.compile(re.escape(name).replace(r"\*", r"([^.]+)"))


def _fill(name: str, parts: Sequence[str]) -> str:
    left = list(parts)
    return re.sub(r"\*", lambda _: left.pop(0), name)


def _check_counter(name: str, given: Tensor, file: str) -> None:
    if given.is_floating_point() or not torch.equal(given.flatten().long(), torch.arange(given.numel())):
        raise CheckpointError(
            f"{file}: tensor {name!r} should count 0, 1, 2, ... and does not. A model with other positions is not supported."
        )


def _check_constant(name: str, given: Tensor, known: Tensor, file: str) -> None:
    if given.shape != known.shape or not torch.allclose(given.float(), known, rtol=1e-2):
        raise CheckpointError(
            f"{file}: tensor {name!r} differs from what config.json says it is. The two files do not belong together."
        )


def _check_copy(name: str, original: str, theirs: Mapping[str, Tensor], file: str) -> None:
    if original in theirs and not torch.equal(theirs[name], theirs[original]):
        raise CheckpointError(
            f"{file}: tensor {name!r} should be {original!r} once more, and differs from it. A model in which they are two is"
            " not supported."
        )


def _difference(
    missing: list[str], unexpected: list[str], shapes: Mapping, where: Mapping[str, str], most: int = 5
) -> str:
    """What is missing and what is too many, and which of these look like one tensor under another name."""
    parts = []
    if missing:
        names = ", ".join(f"{name!r} {tuple(shapes[name])}" for name in missing[:most])
        parts.append(f"expected and not there: {names}" + (" ..." if len(missing) > most else ""))
    if unexpected:
        names = ", ".join(f"{name!r} in {where[name]}" for name in unexpected[:most])
        parts.append(f"there and not expected: {names}" + (" ..." if len(unexpected) > most else ""))
    files = ", ".join(sorted(set(where.values()))[:most]) or "no file"
    text = f"{len(missing)} tensors missing and {len(unexpected)} unexpected ({files}): {'; '.join(parts)}."
    for name in missing[:most]:
        if close := get_close_matches(name, unexpected, n=1, cutoff=0.6):
            text += f" Was {name!r} renamed to {close[0]!r}?"
    return text + " Weights and config.json must be one model's, complete and under the names of the released format."
