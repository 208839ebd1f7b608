"""Classification and retrieval with nothing but texts (CLIP, section 3.1)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from minivlm.language.tokenizer import Tokenizer


@torch.no_grad()
def text_classifier(
    model: nn.Module,
    tokenizer: Tokenizer,
    names: Sequence[str],
    templates: Sequence[str],
    context: int,
) -> Float[Tensor, "k e"]:
    """One unit vector a class: the mean of its prompts' embeddings, made unit length
    again (CLIP, section 3.1.4).

    Args:
        model: has `embed_text(ids)`, which gives unit vectors.
        names: what the classes are called, such as "red circle".
        templates: prompts with one `{}` for a name.
        context: most tokens a prompt may have.
    """
    device = next(model.parameters()).device
    each = []
    for template in templates:
        prompts = [template.format(name) for name in names]
        ids = tokenizer.batch(prompts, context).to(device)
        each.append(model.embed_text(ids))
    return F.normalize(torch.stack(each).mean(0), dim=-1)


def recall_at(k: int, similarity: Float[Tensor, "b b"]) -> float:
    """Share of rows whose own column (the diagonal) is among the `k` most similar."""
    best = similarity.topk(k, dim=1).indices
    own = torch.arange(len(similarity), device=similarity.device)[:, None]
    return (best == own).any(1).float().mean().item()
