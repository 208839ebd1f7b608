"""Where objects are, to the pixel, and how the surveyed models write it: boxes `(x1, y1, x2, y2)`, as text and back.

Intersection over union is `torchvision.ops.box_iou`.
"""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from jaxtyping import Float
from torch import Tensor

from minivlm.world.palette import SHAPES
from minivlm.world.scenes import Scenes

_TAU5 = math.tau / 5
_TIP = 1.05  # radius of the star's tips

#: Shape word -> left, top, right and bottom of its outline, seen from its centre in radii, y down. From the distance
#: functions of `minivlm.world.render`: the moon ends where its two circles cross.
EXTENTS: dict[str, tuple[float, float, float, float]] = {
    "circle": (-1, -1, 1, 1),
    "square": (-0.75, -0.75, 0.75, 0.75),
    "triangle": (-math.sqrt(3) / 2, -0.88, math.sqrt(3) / 2, 0.62),
    "diamond": (-1 / 1.3, -1, 1 / 1.3, 1),
    "cross": (-0.95, -0.95, 0.95, 0.95),
    "ring": (-1, -1, 1, 1),
    "star": (-_TIP * math.sin(_TAU5), -_TIP, _TIP * math.sin(_TAU5), _TIP * math.cos(_TAU5 / 2)),
    "moon": (-1, -1, (1 + 0.52**2 - 0.72**2) / (2 * 0.52), 1),
}


def boxes(scenes: Scenes, height: int, width: int) -> Float[Tensor, "b o 4"]:
    """The tight box of each object in a picture of `height` x `width` pixels: x1, y1, x2, y2, zeros where absent.

    Coordinates are lengths from the top left corner, not numbers of pixels: the whole picture is (0, 0, width, height).
    What lies outside of the picture is cut off; what other objects hide is not.

    Raises:
        ValueError: a picture without pixels.
    """
    _check_canvas(height, width)
    centre = scenes.position * torch.tensor([width, height])
    extent = torch.tensor([EXTENTS[shape] for shape in SHAPES])[scenes.shape]
    corners = torch.cat([centre, centre], -1) + extent * (scenes.size * min(height, width))[..., None]
    corners = torch.minimum(corners.clamp(min=0), torch.tensor([width, height, width, height]))
    return corners * scenes.present[..., None]


@dataclass(frozen=True)
class Convention:
    """How a model writes boxes.

    A number is `coordinate / side * steps`, cut to a whole number (or rounded to `decimals`) and to at most `top`; to read
    it, it is divided by `divisor`. `steps` None means pixels.
    """

    models: str  # in words, for tables
    form: str  # one box, `{}` for each number; "json" for a list of JSON objects
    phrase: str = ""  # how the name of the box stands before it; "" where it is not written
    around: str = "{}"  # what stands around the boxes of one phrase
    between: str | None = None  # between boxes of one phrase; None: the phrase is said again
    comma: str = ""  # between one phrase's boxes and the next phrase
    steps: int | None = 1000
    top: int | None = None
    divisor: int = 1000
    decimals: int = 0
    digits: int = 0  # padded with zeros to so many digits
    padded: bool = False  # sides are those of the picture after padding it to a square

    @property
    def unit(self) -> str:
        """What one step of a number is, in words."""
        frame = "side of the picture padded to a square" if self.padded else "side of the picture"
        return "1 pixel" if self.steps is None else f"1/{self.steps} of the {frame}"


_QWEN, _LIST, _REF = "({},{}),({},{})", "[{}, {}, {}, {}]", "<ref>{}</ref>"
_INTERNVL = Convention("InternVL 1.5 to 2.5", _LIST, _REF, "<box>[{}]</box>", ", ", top=1000)

#: Model (as in the survey) -> how it writes boxes. Sources: papers and official code; where they leave the reader open, the
#: comment says what is taken.
CONVENTIONS: dict[str, Convention] = {
    # The boxes that the text-only GPT-4 was shown; the model itself does not write any.
    "llava": Convention("LLaVA's data", _LIST, "{}: ", comma=", ", steps=1, divisor=1, decimals=3),
    # Two decimals at most. The picture is padded to a square first, and boxes are those of the square (issue 606 of its
    # repository). Phrases are in the question, not in the answer.
    "llava_1_5": Convention("LLaVA-1.5", _LIST, comma=", ", steps=1, divisor=1, decimals=2, padded=True),
    # [0, 1000), but its own evaluation divides by 999.
    "qwen_vl": Convention("Qwen-VL", _QWEN, _REF, "<box>{}</box>", "</box><box>", top=999, divisor=999),
    "cogvlm": Convention("CogVLM", "{},{},{},{}", "{} ", "[[{}]]", ";", ", ", top=999, digits=3),
    "internvl_1_5": _INTERNVL,
    # Plain text, no special tokens. The normaliser is not stated; its examples go with this one.
    "nvlm": Convention("NVLM", _QWEN, _REF, "<box>{}</box>", "</box><box>", top=1000),
    "qwen2_vl": Convention(
        "Qwen2-VL", _QWEN, "<|object_ref_start|>{}<|object_ref_end|>", "<|box_start|>{}<|box_end|>",
        "<|box_end|><|box_start|>", top=999,
    ),
    "internvl_2_5": _INTERNVL,
    "deepseek_vl2": Convention(
        "DeepSeek-VL2", _LIST, "<|ref|>{}<|/ref|>", "<|det|>[{}]<|/det|>", ", ", steps=999, top=999, divisor=999
    ),
    # Pixels of the *resized* picture that the model sees: give `boxes`, height and width of that one.
    "qwen2_5_vl": Convention("Qwen2.5-VL", "json", steps=None, divisor=1),
}  # fmt: skip

#: Characters that some convention needs for itself.
_RESERVED = '<>[](){}|;:,"\\\n'


def write(
    convention: str, boxes: Float[Tensor, "n 4"], height: int, width: int, phrases: Sequence[str] | None = None
) -> str:
    """Boxes, in pixels of a picture of `height` x `width`, as the model writes them, each with its phrase.

    One phrase for several boxes in a row is written once where the model does so. LLaVA-1.5 writes no phrases.

    Raises:
        ValueError: an unknown convention, no box, one without area or outside of the picture (absent objects? take
            `boxes(...)[scenes.present]`), or phrases that are missing, too few, empty or hold punctuation.
    """
    how = _convention(convention)
    _check_canvas(height, width)
    rows = boxes.double()
    inside = (rows >= 0) & (rows <= torch.tensor([width, height, width, height]) + 1e-3)
    if not len(rows) or not inside.all() or not (rows[:, :2] < rows[:, 2:]).all():
        raise ValueError(
            f"write needs at least one box, each 0 <= x1 < x2 <= {width} and 0 <= y1 < y2 <= {height}; got {boxes.tolist()}."
            " Leave absent objects out: boxes(...)[scenes.present]."
        )
    if _named(how):
        phrases = [] if phrases is None else [phrases] if isinstance(phrases, str) else list(phrases)
        if len(phrases) != len(rows):
            raise ValueError(f"{how.models} writes a phrase for each box: {len(rows)} are needed; got {phrases}.")
        for phrase in phrases:
            if not isinstance(phrase, str) or not phrase.strip() or set(phrase) & set(_RESERVED):
                raise ValueError(f"a phrase is made of words, without any of {_RESERVED!r}; got {phrase!r}.")
        phrases = [phrase.strip() for phrase in phrases]
    else:
        phrases = [""] * len(rows)
    left, top, side_x, side_y = _frame(how, height, width)
    sides = rows.new_tensor([side_x, side_y] * 2)
    numbers = rows + rows.new_tensor([left, top] * 2)
    if how.steps is not None:
        numbers = numbers * how.steps / sides
    if how.decimals:
        texts = [[str(round(value, how.decimals)) for value in row] for row in numbers.tolist()]
    else:
        limit = sides - 1 if how.steps is None else torch.full_like(sides, how.top)
        whole = torch.minimum(numbers.floor(), limit).long().tolist()
        if how.form == "json":
            return json.dumps([{"bbox_2d": row, "label": phrase} for row, phrase in zip(whole, phrases, strict=True)])
        texts = [[f"{value:0{how.digits}d}" if how.digits else str(value) for value in row] for row in whole]
    pieces = [(phrase, how.form.format(*row)) for phrase, row in zip(phrases, texts, strict=True)]
    if how.between is None:
        groups = [(phrase, [piece]) for phrase, piece in pieces]
    else:
        groups = [(key, [piece for _, piece in run]) for key, run in groupby(pieces, key=lambda pair: pair[0])]
    return how.comma.join(how.phrase.format(p) + how.around.format((how.between or "").join(b)) for p, b in groups)


def parse(convention: str, text: str, height: int, width: int) -> tuple[list[str], Float[Tensor, "n 4"]]:
    """What `write` wrote, or a model that learned it: phrases ("" where there are none), and boxes in pixels.

    Spaces do not matter. A box is off by one `unit` at most.

    Raises:
        ValueError: an unknown convention, or a text that is not, from beginning to end, boxes of that convention.
    """
    how = _convention(convention)
    _check_canvas(height, width)
    found = _read_json(text) if how.form == "json" else _read(how, text)
    if not found:
        raise ValueError(f"no box in {text!r}; expected, for example, {_example(convention)!r}.")
    numbers = torch.tensor([row for _, row in found], dtype=torch.float64)
    left, top, side_x, side_y = _frame(how, height, width)
    sides = numbers.new_tensor([side_x, side_y] * 2)
    most = sides if how.steps is None else torch.full_like(sides, how.top or 1)
    if not ((numbers >= 0) & (numbers <= most)).all() or (numbers[:, :2] > numbers[:, 2:]).any():
        raise ValueError(
            f"boxes of {how.models} are 0 <= x1 <= x2 and 0 <= y1 <= y2 <= {most.tolist()[2:]}; got {text!r}."
        )
    rows = numbers / how.divisor * (1 if how.steps is None else sides) - numbers.new_tensor([left, top] * 2)
    rows = torch.minimum(rows.clamp(min=0), rows.new_tensor([width, height] * 2))
    return [phrase for phrase, _ in found], rows.float()


def _read(how: Convention, text: str) -> list[tuple[str, list[float]]]:
    number = r"(\d+\.\d+|\d+)" if how.decimals else r"(\d+)"
    one = _pattern(how.form, number)
    bare = one.replace("(\\d", "(?:\\d")
    several = bare if how.between is None else rf"{bare}(?:\s*{_pattern(how.between)}\s*{bare})*"
    text = re.sub(r"\s+", " ", text.strip())  # long runs of spaces would take the patterns a long time
    name = _pattern(how.phrase, rf"([^\s{re.escape(_RESERVED)}](?:[^{re.escape(_RESERVED)}]*[^\s{re.escape(_RESERVED)}])?)")
    name = name if how.phrase else "()"
    group = re.compile(rf"\s*{name}\s*{_pattern(how.around, f'({several})')}\s*")
    found, start = [], 0
    while start < len(text):
        comma = re.compile(_pattern(how.comma)).match(text, start) if found else None
        match = group.match(text, comma.end() if comma else start) if comma or not found else None
        if not match:
            example = how.phrase.format("red star") + how.around.format(how.form.format(*"1234"))
            raise ValueError(
                f"boxes of {how.models} look like {example!r}; got {text[start:]!r}, from character {start} on."
            )
        found += [(match[1].strip(), [float(n) for n in numbers]) for numbers in re.findall(one, match[2])]
        start = match.end()
    return found


def _read_json(text: str) -> list[tuple[str, list[float]]]:
    form = '[{"bbox_2d": [1, 2, 3, 4], "label": "red star"}]'
    try:
        rows = json.loads(re.sub(r"\A\s*```(?:json)?|```\s*\Z", "", text))
        found = [(row["label"], row["bbox_2d"]) for row in rows]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"boxes are a JSON list such as {form}; got {text!r}.") from error
    for label, numbers in found:
        good = isinstance(label, str) and isinstance(numbers, list) and len(numbers) == 4
        if not good or not all(type(number) in (int, float) and abs(number) < 2**31 for number in numbers):
            raise ValueError(f"boxes are a JSON list such as {form}; got {text!r}.")
    return [(label, [float(number) for number in numbers]) for label, numbers in found]


def _pattern(template: str, hole: str = "") -> str:
    """A template as a regular expression: `hole` for each `{}`, tags whole, spaces anywhere or nowhere."""
    parts = re.findall(r"\{\}|<[^>]*>|\S", template)
    return r"\s*".join(hole if part == "{}" else re.escape(part) for part in parts)


def _frame(how: Convention, height: int, width: int) -> tuple[int, int, int, int]:
    """Where the picture's corner lies in what the numbers measure, and the sides of that: left, top, width, height."""
    if not how.padded:
        return 0, 0, width, height
    side = max(height, width)
    return (side - width) // 2, (side - height) // 2, side, side


def _named(how: Convention) -> bool:
    return bool(how.phrase) or how.form == "json"


def _example(convention: str) -> str:
    return write(convention, torch.tensor([[10.0, 20, 30, 40]]), 100, 100, ["red star"])


def _convention(name: str) -> Convention:
    if name not in CONVENTIONS:
        raise ValueError(f"no convention {name!r}: there are {', '.join(CONVENTIONS)}.")
    return CONVENTIONS[name]


def _check_canvas(height: int, width: int) -> None:
    if height < 1 or width < 1:
        raise ValueError(f"a picture needs at least 1 x 1 pixels; got height={height}, width={width}.")
