"""The training loop and what goes with it."""

from minivlm.training.loop import cosine_schedule, fit, parameter_groups

__all__ = ["cosine_schedule", "fit", "parameter_groups"]
