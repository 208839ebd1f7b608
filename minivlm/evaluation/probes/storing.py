"""Is everything that a model knows in what is saved of it?"""

from collections.abc import Callable
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from minivlm.evaluation.probes.compare import identical
from minivlm.evaluation.probes.rows import logits, probe, rows


@probe
def storing(model: nn.Module, batch: Any, again: Callable[[nn.Module], nn.Module] | None = None) -> float:
    """Saved and loaded, the model answers the same to the last bit.

    Args:
        again: saves the model and returns what was loaded. By default its tensors go through safetensors into a new one of its
            class, made from its config.

    Raises:
        AssertionError: the answers differ.
    """
    loaded = (again or _again)(model)
    loaded = loaded.to(next(model.parameters()).device).eval()
    text = "saved and loaded, the model answers otherwise"
    return max(
        identical(new, old, text) for new, old in zip(_answers(loaded, batch), _answers(model, batch), strict=True)
    )


def _again(model: nn.Module) -> nn.Module:
    copies = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in model.state_dict().items()}
    data = safetensors.torch.save(copies)
    with torch.random.fork_rng(devices=[]):
        # So that it starts with other numbers than the model did; torch.manual_seed would seed the GPUs too.
        torch.default_generator.manual_seed(2**31 - 1)
        fresh = type(model)(model.config)
    fresh.to(next(model.parameters()).dtype).load_state_dict(safetensors.torch.load(data))
    return fresh


def _answers(model: nn.Module, batch: Any) -> list[Tensor]:
    if hasattr(batch, "labels"):
        return logits(model, rows(model, batch))
    return [model.embed_image(batch.pixel_values), model.embed_text(batch.ids)]
