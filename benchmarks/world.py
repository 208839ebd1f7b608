"""How fast is the world? Scenes, pictures and captions a second, and what making data takes of a training step.

    python benchmarks/world.py [--write results/speed_world.json]

One thread, CPU time, median of several rounds; nothing else should run meanwhile.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from minivlm import world
from minivlm.language.tokenizer import Tokenizer
from minivlm.models.clip import CLIP, CLIPConfig, Pairs
from minivlm.training import parameter_groups
from minivlm.vision.processor import normalize
from minivlm.world import documents
from minivlm.world.asking import ask
from minivlm.world.corpus import read
from minivlm.world.questions import Questions
from minivlm.world.scenes import things

BATCH = 96  # as in notebook 01


def seconds(work: Callable[[], object], rounds: int = 15) -> float:
    """Median CPU seconds of one call, after two to warm up."""
    taken = []
    for _ in range(rounds + 2):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return statistics.median(taken[2:])


def measure() -> dict[str, float]:
    """All figures: `..._per_second`, milliseconds, and the share of a step that making its data takes."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rng, n = world.generator("speed"), 2048
    say, tokenizer = world.Captions(rng), Tokenizer(world.vocabulary())
    scenes = world.draw_scenes(rng, n)
    captions, these_things = say(scenes), things(scenes)
    model = CLIP(CLIPConfig.tiny(len(tokenizer), tokenizer.eos))
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.1), lr=1e-4, fused=True)

    def batch() -> Pairs:
        few = world.draw_scenes(rng, BATCH, (1, 1))
        return Pairs(normalize(world.render(few, 32)), tokenizer.batch(say(few), 32))

    def step(pairs: Pairs) -> None:
        optimizer.zero_grad(set_to_none=True)
        model.loss(pairs).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    document = documents.draw_documents(rng, 1)
    fullest = documents.draw_documents(rng, 1, rows=(8, 8), columns=(6, 6))
    asked = Questions(rng)
    fixed = batch()
    making, training = seconds(batch), seconds(lambda: step(fixed))
    return {
        "scenes_drawn_per_second": n / seconds(lambda: world.draw_scenes(rng, n)),
        "scenes_rendered_32px_per_second": n / seconds(lambda: world.render(scenes, 32)),
        "drawn_and_rendered_32px_per_second": n / seconds(lambda: world.render(world.draw_scenes(rng, n), 32)),
        "captions_written_per_second": n / seconds(lambda: say(scenes)),
        "captions_tokenised_per_second": n / seconds(lambda: tokenizer.batch(captions, 40)),
        "questions_asked_per_second": n / seconds(lambda: [asked(these) for these in these_things]),
        "scenes_with_balanced_questions_per_second": n / seconds(lambda: ask(rng, n), 5),
        "texts_for_reading_per_second": 1024 / seconds(lambda: read("speed", 0, 0, 1024), 5),
        "render_512px_ms": 1000 * seconds(lambda: world.render(scenes[0], 512)),
        "document_512px_ms": 1000 * seconds(lambda: documents.render(document, 512), 51),
        "fullest_document_512px_ms": 1000 * seconds(lambda: documents.render(fullest, 512), 51),
        "clip_batch_made_ms": 1000 * making,
        "clip_step_ms": 1000 * training,
        "data_share_of_a_step": making / (making + training),
    }


def main() -> None:
    """Print the figures; with `--write`, store them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", type=Path)
    arguments = parser.parse_args()
    figures = measure()
    for name, value in figures.items():
        print(f"{name:40s}{value:14,.3f}" if value < 100 else f"{name:40s}{value:14,.0f}")
    if arguments.write:
        about = {"threads": 1, "torch": torch.__version__, "world": world.VERSION}
        arguments.write.write_text(json.dumps(about | figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
