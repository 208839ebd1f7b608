"""How fast are the models, against the reference library?

    python benchmarks/models.py [clip llava ...] [--write results/speed_models.json]

Each model of the course and its reference (`transformers`) with the same weights, in one process and one thread, in turn:
forward and backward of the loss, and greedy writing with a cache. Median CPU time; before it is taken, both must compute the
same. Nothing else should run meanwhile.
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from torch import Tensor, nn

from minivlm import checkpoints
from minivlm.language.decoder import Decoder, Texts
from minivlm.models.clip import Pairs
from minivlm.models.llava import Chats

WIDTH, LAYERS, HEADS, HIDDEN = 128, 4, 4, 344
BATCH, PATCHES, WORDS, NEW = 16, 64, 32, 64  # images of 8 x 8 patches, each with a text; tokens to be written
ANSWER = 16  # how many of the words are learned, where not all are
VOCABULARY, IMAGE = 1024, 1
ROUNDS = 31


@dataclass(frozen=True)
class Rivals:
    """What is compared: the loss of a batch, and what is written; `write` None for a model that does not."""

    ours: nn.Module
    theirs: nn.Module
    our_loss: Callable[[], Tensor]
    their_loss: Callable[[], Tensor]
    our_write: Callable[[], Tensor] | None = None
    their_write: Callable[[], Tensor] | None = None


def _vision() -> dict:
    return {
        "hidden_size": WIDTH, "intermediate_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "image_size": 64, "patch_size": 8,
    }  # fmt: skip


def _language() -> dict:
    return {
        "hidden_size": WIDTH, "intermediate_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS, "vocab_size": VOCABULARY, "max_position_embeddings": 256, "bos_token_id": None,
        "eos_token_id": None, "pad_token_id": 0,
    }  # fmt: skip


def _loaded(reference: nn.Module) -> nn.Module:
    """Our class with the reference's weights."""
    with tempfile.TemporaryDirectory() as folder:
        reference.save_pretrained(folder)
        return checkpoints.load(folder).model.train()


def clip() -> Rivals:
    """Both towers, the contrastive loss."""
    text = {
        "hidden_size": WIDTH, "intermediate_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "vocab_size": VOCABULARY, "max_position_embeddings": WORDS, "eos_token_id": VOCABULARY - 1, "bos_token_id": 3,
        "pad_token_id": 0,
    }  # fmt: skip
    config = transformers.CLIPConfig(vision_config=_vision(), text_config=text, projection_dim=WIDTH)
    theirs = transformers.CLIPModel(config).train()
    ours = _loaded(theirs)
    pixels, ids = torch.randn(BATCH, 3, 64, 64), torch.randint(4, VOCABULARY - 1, (BATCH, WORDS))
    ids[:, -1] = VOCABULARY - 1
    return Rivals(
        ours, theirs, lambda: ours.loss(Pairs(pixels, ids)),
        lambda: theirs(input_ids=ids, pixel_values=pixels, return_loss=True).loss,
    )  # fmt: skip


def decoder() -> Rivals:
    """The language model alone: as many tokens as an image and its text have."""
    config = transformers.LlamaConfig(**_language(), tie_word_embeddings=False)
    theirs = transformers.LlamaForCausalLM(config).train()
    ours: Decoder = _loaded(theirs)
    ids = torch.randint(4, VOCABULARY, (BATCH, PATCHES + WORDS))
    labels = ids.clone()
    labels[:, :-ANSWER] = -100
    return Rivals(
        ours, theirs, lambda: ours.loss(Texts(ids, labels)), lambda: theirs(input_ids=ids, labels=labels).loss,
        lambda: _generate(ours, ids), lambda: theirs.generate(input_ids=ids, **_how())[:, ids.shape[1] :],
    )  # fmt: skip


def llava() -> Rivals:
    """Image and text, the loss on the answer; with LLaVA-1.5's connector, which the reference has."""
    config = transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**_vision(), projection_dim=WIDTH),
        text_config=transformers.LlamaConfig(**_language()),
        image_token_index=IMAGE, image_token_id=IMAGE, tie_word_embeddings=False,
    )  # fmt: skip
    theirs = transformers.LlavaForConditionalGeneration(config).train()
    ours = _loaded(theirs)
    pixels, ids = torch.randn(BATCH, 3, 64, 64), torch.randint(4, VOCABULARY, (BATCH, PATCHES + WORDS))
    ids[:, 2 : 2 + PATCHES] = IMAGE
    labels = ids.clone()
    labels[:, :-ANSWER] = -100
    return Rivals(
        ours, theirs, lambda: ours.loss(Chats(pixels, ids, labels)),
        lambda: theirs(input_ids=ids, pixel_values=pixels, labels=labels).loss,
        lambda: ours.generate(ids, pixels, max_new_tokens=NEW),
        lambda: theirs.generate(input_ids=ids, pixel_values=pixels, **_how())[:, ids.shape[1] :],
    )  # fmt: skip


MODELS: dict[str, Callable[[], Rivals]] = {"clip": clip, "decoder": decoder, "llava": llava}


def _how() -> dict:
    return {"max_new_tokens": NEW, "min_new_tokens": NEW, "do_sample": False, "use_cache": True}


def _generate(model: Decoder, ids: Tensor) -> Tensor:
    from minivlm.language.generate import generate

    return generate(model, ids, max_new_tokens=NEW)


def alternately(ours: Callable[[], object], theirs: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Median CPU seconds of each, called in turn; the first two rounds warm up."""
    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds + 2):
        for work, times in zip((ours, theirs), taken, strict=True):
            start = time.process_time()
            work()
            times.append(time.process_time() - start)
    return statistics.median(taken[0][2:]), statistics.median(taken[1][2:])


def step(model: nn.Module, loss: Callable[[], Tensor]) -> None:
    """Forward and backward, no optimizer."""
    model.zero_grad(set_to_none=True)
    loss().backward()


def measure(name: str, rounds: int = ROUNDS) -> dict[str, float]:
    """Milliseconds of ours and theirs, and the ratio.

    Raises:
        RuntimeError: they do not compute the same.
    """
    torch.manual_seed(0)
    pair = MODELS[name]()
    with torch.no_grad():
        mine, other = pair.our_loss().item(), pair.their_loss().item()
    if abs(mine - other) > 1e-4:
        raise RuntimeError(f"{name}: the losses differ, {mine} and {other}; a comparison of times would mean nothing.")
    ours, theirs = alternately(
        lambda: step(pair.ours, pair.our_loss), lambda: step(pair.theirs, pair.their_loss), rounds
    )
    found = {"step_ms": 1000 * ours, "reference_step_ms": 1000 * theirs, "step_ratio": ours / theirs}
    if pair.our_write is not None and pair.their_write is not None:
        pair.ours.eval()
        pair.theirs.eval()
        if not torch.equal(pair.our_write(), pair.their_write()):
            raise RuntimeError(f"{name}: what is written differs; a comparison of times would mean nothing.")
        ours, theirs = alternately(pair.our_write, pair.their_write, max(5, rounds // 4))
        found |= {"write_ms": 1000 * ours, "reference_write_ms": 1000 * theirs, "write_ratio": ours / theirs}
    return found


def main() -> None:
    """Print a table; with `--write`, store it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", choices=[[], *MODELS], metavar="model", help=f"of {', '.join(MODELS)}")
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'':10s}{'step, ms':>10s}{'reference':>11s}{'ratio':>7s}{'write, ms':>12s}{'reference':>11s}{'ratio':>7s}")
    figures = {}
    for name in given.models or MODELS:
        found = figures[name] = measure(name)
        line = f"{name:10s}{found['step_ms']:10.1f}{found['reference_step_ms']:11.1f}{found['step_ratio']:7.2f}"
        if "write_ms" in found:
            line += f"{found['write_ms']:12.1f}{found['reference_write_ms']:11.1f}{found['write_ratio']:7.2f}"
        print(line, flush=True)
    if given.write:
        about = {
            "threads": 1, "torch": torch.__version__, "transformers": transformers.__version__,
            "machine": platform.machine(), "width": WIDTH, "layers": LAYERS, "batch": BATCH, "patches": PATCHES,
            "words": WORDS, "written": NEW,
        }  # fmt: skip
        given.write.write_text(json.dumps(about | {"models": figures}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
