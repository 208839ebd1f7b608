"""Text -> token ids -> the same text: one token for each known word, bytes for
everything else.

A word token *includes the space before it*, except where none is expected: at the
start, after a line break and after a special token. Whatever departs from that is
spelled out (a `glue` token: no space here; a space byte: one more), so
`decode(encode(text)) == text` for any text at all.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from minivlm.language.specials import FIRST, SPECIALS

#: Ids kept for special tokens, used or not, so that adding one later changes no other
#: id: hundreds are free (and it is a multiple of 64, which hardware likes). Never
#: change it.
SPECIAL_IDS = 640

_SPACE = SPECIAL_IDS + ord(" ")
_NEWLINE = SPECIAL_IDS + ord("\n")


class Tokenizer:
    """Ids: special tokens (and room for more), then the 256 bytes, then the words.

    Digits and punctuation are single bytes, hence single tokens.

    Args:
        words: lower- or upper-case ASCII words, each one token.
        specials: texts such as `<image>` that always become one token of their own,
            beginning with `FIRST`; those of all models of the course by default.
    """

    def __init__(
        self, words: Iterable[str], specials: Sequence[str] = SPECIALS
    ) -> None:
        words = [words] if isinstance(words, str) else list(words)
        odd = [word for word in words if not re.fullmatch("[A-Za-z]+", word)]
        if odd or len(set(words)) != len(words):
            raise ValueError(
                "words must be distinct and made of ASCII letters;"
                f" got {odd or 'duplicates'}."
            )
        if tuple(specials[: len(FIRST)]) != FIRST or len(specials) > SPECIAL_IDS:
            raise ValueError(
                f"specials must begin with {FIRST} and be at most {SPECIAL_IDS};"
                f" got {len(specials)}: {specials[:8]} ..."
            )
        plain = [text for text in specials if re.match(r"[ A-Za-z]|.?\Z", text, re.S)]
        if len(set(specials)) != len(specials) or plain:
            raise ValueError(
                "specials must be distinct, of two characters or more, and none may"
                f" begin with a letter or a space; got {plain or 'duplicates'}."
            )
        self.words, self.specials = words, list(specials)
        self._special_id = {text: i for i, text in enumerate(specials)}
        del self._special_id["<glue>"]  # nobody means it by typing it
        self._word_id = {word: SPECIAL_IDS + 256 + i for i, word in enumerate(words)}
        longest_first = sorted(self._special_id, key=len, reverse=True)
        first = "".join({re.escape(text[0]) for text in longest_first})  # for speed
        special = f"(?=[{first}])(?:{'|'.join(map(re.escape, longest_first))})"
        self._pieces = re.compile(f" ?[A-Za-z]+|{special}|.", re.DOTALL)
        self._plain = re.compile(" ?[A-Za-z]+|.", re.DOTALL)
        self._known: dict[tuple[str, bool], tuple[int, ...]] = {}
        self.pad, self.bos, self.glue, self.eos = range(len(FIRST))

    def __len__(self) -> int:
        """Size of the vocabulary, unused special ids included."""
        return SPECIAL_IDS + 256 + len(self.words)

    def encode(
        self, text: str, specials: bool = True, after: Sequence[int] = ()
    ) -> list[int]:
        """Token ids of `text`, nothing added.

        `specials=False` spells out what looks like a special token: what a stranger
        types may talk about `<image>`, but not become one. `after`: ids that the new
        ones go on from; pieces of a text, cut between words, then make the whole.
        """
        ids: list[int] = []
        # Nothing, a line break or a special token before: no space needed.
        start = not after or after[-1] == _NEWLINE or after[-1] < SPECIAL_IDS
        for piece in (self._pieces if specials else self._plain).findall(text):
            known = self._known.get((piece, start))
            if known is None:
                known = self._known[piece, start] = self._piece(piece, start)
                if len(self._known) > 100_000:  # strange text must not fill the memory
                    self._known.clear()
            ids += known
            start = known[-1] == _NEWLINE or known[-1] < SPECIAL_IDS
        return ids

    def _piece(self, piece: str, start: bool) -> tuple[int, ...]:
        if piece in self._special_id:
            return (self._special_id[piece],)
        word = self._word_id.get(piece.lstrip(" "))
        if word is None:
            return tuple(
                SPECIAL_IDS + byte for byte in piece.encode("utf-8", "surrogatepass")
            )
        spaced = piece[0] == " "
        if start:
            return (_SPACE, self.glue, word) if spaced else (word,)
        return (word,) if spaced else (self.glue, word)

    def decode(self, ids: Sequence[int] | Tensor, skip_specials: bool = False) -> str:
        """The text of `ids`; `skip_specials` leaves out `<pad>`, `<eos>` and the
        like.
        """
        ids = ids.tolist() if isinstance(ids, Tensor) else ids
        out, start = bytearray(), True
        for i in ids:
            if not 0 <= i < len(self):
                raise ValueError(
                    f"token id {i} lies outside the vocabulary of {len(self)}."
                )
            if i >= SPECIAL_IDS + 256:
                out += b"" if start else b" "
                out += self.words[i - SPECIAL_IDS - 256].encode()
            elif i >= SPECIAL_IDS:
                out.append(i - SPECIAL_IDS)
            elif i != self.glue and not skip_specials:
                out += (
                    self.specials[i] if i < len(self.specials) else f"<reserved {i}>"
                ).encode()
            start = i == _NEWLINE or i < SPECIAL_IDS
        try:
            return out.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:  # ids that no text has: half a character, say
            return out.decode("utf-8", "replace")

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Each id as a reader would like to see it, for figures: words, characters,
        special tokens.
        """
        return [self.decode([i]) if i != self.glue else "<glue>" for i in ids]

    def batch(
        self, texts: Iterable[Any], length: int, specials: bool = True
    ) -> Int[Tensor, "b t"]:
        """`<bos> text <eos>`, padded on the right to the longest of the batch.
        `specials` as in `encode`.

        Raises:
            TypeError: a single string, or something that is none.
            ValueError: no texts, an empty text, or one longer than `length` tokens.
        """
        if isinstance(texts, str):
            raise TypeError(
                f"batch takes a list of texts; got one text: write [{texts!r}]."
            )
        texts = list(texts)
        if odd := [text for text in texts if not isinstance(text, str)]:
            raise TypeError(f"texts must be strings; got {odd[0]!r}.")
        rows = [[self.bos, *self.encode(text, specials), self.eos] for text in texts]
        if not rows:
            raise ValueError("batch needs at least one text; got none.")
        for text, row in zip(texts, rows, strict=True):
            if not text.strip():
                raise ValueError(
                    f"a text is empty ({text!r}); write one, such as 'a red circle'."
                )
            if len(row) > length:
                raise ValueError(
                    f"a text has {len(row)} tokens with <bos> and <eos>; the context"
                    f" holds {length}: {text[:60]!r}{'...' if len(text) > 60 else ''}."
                    " Shorten it, or use a model with a longer context."
                )
        width = max(map(len, rows))
        return torch.tensor([row + [self.pad] * (width - len(row)) for row in rows])
