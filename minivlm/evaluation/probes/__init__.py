"""Behavioural probes: what must be true of a model of its kind, whatever its weights.

`run(model, batch)` prints a line for each that has a meaning for the model. Each is also a function of its own: it returns the
number it measured, or raises an AssertionError that says what is wrong and by how much. A few need more than a batch:
`packed`, `snapshot` with `unchanged` and `changed`, `no_blind_cheating`.

A model that speaks has `forward(ids, pixel_values, keep)`, `generate`, `loss`, `config.image_id` if its texts keep places for
images, and for some probes `embed`, `embed_image`, `language`. Its batches are NamedTuples with `pixel_values` (all images in
reading order: a tensor, or a list with a tensor for each), `ids`, `labels` and possibly `keep`; and, where a model looks for
what it is asked, `asked` and `asked_keep` with a row for each image, which its methods take too. One that embeds has
`embed_image` and `embed_text`.
"""

from minivlm.evaluation.probes.embedding import alone, distinct, order, unit_length
from minivlm.evaluation.probes.learning import answers_only, changed, snapshot, unchanged
from minivlm.evaluation.probes.observing import OneSense, one_sense, only_places, words_alone
from minivlm.evaluation.probes.reading import (
    causality,
    every_image,
    image_tokens,
    left_padding,
    packed,
    padding,
    permutation,
)
from minivlm.evaluation.probes.running import EMBEDDING, SPEAKING, Probe, meant_for, run
from minivlm.evaluation.probes.seeing import Sight, no_blind_cheating
from minivlm.evaluation.probes.storing import storing
from minivlm.evaluation.probes.writing import cache, teacher_forcing

__all__ = [
    "EMBEDDING",
    "SPEAKING",
    "OneSense",
    "Probe",
    "Sight",
    "alone",
    "answers_only",
    "cache",
    "causality",
    "changed",
    "distinct",
    "every_image",
    "image_tokens",
    "left_padding",
    "meant_for",
    "no_blind_cheating",
    "one_sense",
    "only_places",
    "order",
    "packed",
    "padding",
    "permutation",
    "run",
    "snapshot",
    "storing",
    "teacher_forcing",
    "unchanged",
    "unit_length",
    "words_alone",
]
