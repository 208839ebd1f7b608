"""Run by test_distributed.py, alone or under torchrun: python -m tests.training.together WHAT FOLDER UNTIL."""

import json
import sys
from pathlib import Path

import torch
from torch import nn

from minivlm.language.decoder import Decoder, DecoderConfig, Texts
from minivlm.training import Checkpoint, CheckpointError, accumulated, fit, labels
from minivlm.training.distributed import everyone, processes, replicated, sharded, share, whole

STEPS = 10


class Line(nn.Module):
    """Rows count the same; the second part is used by nobody."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.rows = []

    def loss(self, batch):
        self.rows.append(len(batch))
        x = self.frozen(batch)
        for block in self.blocks:
            x = block(x).tanh()
        return (x - batch).square().mean()


def rows(start: int):
    generator = torch.Generator().manual_seed(0)
    for number, batch in enumerate(iter(lambda: torch.randn(8, 4, generator=generator), None)):
        if number >= start:
            yield batch


def texts(start: int):
    """Texts with very different numbers of labels."""
    for number in range(start, 100):
        generator = torch.Generator().manual_seed(number)
        ids = torch.randint(0, 20, (4, 12), generator=generator)
        wanted = torch.arange(12) < torch.tensor([[3], [4], [11], [12]])
        yield Texts(ids, ids.where(wanted, -100))


def train(what: str, ranks, folder: Path, until: int | None = None):
    torch.manual_seed(0)  # FSDP: the same start everywhere
    speaks = what.startswith("texts")
    model = Decoder(DecoderConfig.tiny(20, width=16, layers=2)) if speaks else Line()
    stream = texts if speaks else rows
    loss = (sharded if what.endswith("sharded") else replicated)(model, labels if speaks and ranks.world > 1 else None)
    parts = 2 if what.endswith("parts") else 1
    loss = accumulated(loss) if parts > 1 else loss

    def mine(start: int):
        for number, batch in enumerate(stream(start), start):
            if number == until:
                raise InterruptedError
            own = share(batch, ranks.rank, ranks.world)
            yield own if parts == 1 else list(own.chunk(parts))

    history = {"loss": []}
    with Checkpoint(folder / "run", every=3) as checkpoint:
        try:
            history = fit(model, mine, STEPS, lr=0.02, loss=loss, checkpoint=checkpoint, name=f"rank {ranks.rank}")
        except InterruptedError:
            pass
    return {
        "loss": history["loss"],
        "weights": [whole(p).tolist() for p in model.parameters()],
        "rows": everyone(getattr(model, "rows", [])),
        "here": sum((p.to_local() if hasattr(p, "to_local") else p).numel() for p in model.parameters()),
        "in all": sum(p.numel() for p in model.parameters()),
    }


def main(what: str, folder: Path, until: str) -> None:
    with processes() as ranks:
        try:
            found = train(what, ranks, folder, int(until) if int(until) else None)
        except CheckpointError as error:
            found = {"error": str(error)}
        everyone(None)
        if ranks.rank == 0:
            (folder / "found.json").write_text(json.dumps(found | {"world": ranks.world}))
        else:
            (folder / f"found {ranks.rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
