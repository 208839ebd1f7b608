"""The training loop and what goes with it."""

from minivlm.training.checkpoint import Checkpoint, CheckpointError
from minivlm.training.data import shuffled
from minivlm.training.freezing import frozen, train_mode
from minivlm.training.loop import cosine_schedule, fit, parameter_groups
from minivlm.training.losses import accumulated, bundled, in_bf16, labels

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "accumulated",
    "bundled",
    "cosine_schedule",
    "fit",
    "frozen",
    "in_bf16",
    "labels",
    "parameter_groups",
    "shuffled",
    "train_mode",
]
