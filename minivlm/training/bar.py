"""A bar for a person who looks on. The loop prints about ten lines and knows nothing of it: its batches are counted."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stdout

from tqdm import tqdm
from tqdm.contrib import DummyTqdmFile

Batches = Iterable | Callable[[int], Iterable]  # as `fit` takes them


@contextmanager
def bar(steps: int, name: str = "") -> Iterator[Callable[[Batches], Batches]]:
    """Draws a bar of `steps` steps while a training runs, where what is printed goes to a terminal. Printed lines stand above
    it; at the end it is wiped. In a file, in a notebook, and in all processes but the first there is none.

        with bar(steps, "CLIP") as shown:
            fit(model, shown(batches), steps)

    `shown` takes batches in either form that `fit` knows, and gives them in the same; a training that goes on begins where it
    was. One bundle is one step: `shown(bundled(batches, 4))`.
    """
    with tqdm(total=steps, desc=name, file=sys.stdout, leave=False, disable=None) as drawn:  # None: without a terminal
        if drawn.disable:
            yield lambda batches: batches
        else:
            with redirect_stdout(DummyTqdmFile(sys.stdout)):
                yield lambda batches: _shown(batches, drawn)


def _shown(batches: Batches, drawn: tqdm) -> Batches:
    if not callable(batches):
        return _counted(batches, drawn, 0)
    return lambda start: _counted(batches(start), drawn, start)


def _counted(batches: Iterable, drawn: tqdm, start: int) -> Iterator:
    drawn.reset()
    drawn.initial = drawn.n = start  # done by another run: it counts, but not for the speed
    drawn.refresh()
    for batch in batches:
        yield batch
        drawn.update()  # asked for the next one: this step is done
