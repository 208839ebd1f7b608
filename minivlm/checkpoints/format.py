"""What one released format consists of. Each model's file in this room ends with its own."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minivlm.checkpoints.names import Table
from minivlm.checkpoints.settings import Settings


@dataclass(frozen=True)
class Format:
    """One released format and the lesson class it belongs to."""

    model_type: str  # as in config.json
    architecture: str
    model: type[nn.Module]  # the lesson class
    wrapper: type[nn.Module]  # takes the reference's arguments; made from a lesson model
    read_config: Callable[[Settings], Any]
    write_config: Callable[[Any], dict[str, Any]]
    table: Callable[[Any], Table]  # of a config
    fits: Callable[[Any], bool] = lambda config: True  # where several formats share a class: is this config one of it?
    # Where the vision encoder lies in a folder of its own: settings with its own among them, its tensors, their files.
    beside: Callable[[Settings, Path], tuple[Settings, dict[str, Tensor], dict[str, str]]] | None = None

    def expected(self, config: Any) -> dict[str, Tensor]:
        """Names and shapes of our tensors; nothing is allocated."""
        with torch.device("meta"):
            return self.model(config).state_dict()
