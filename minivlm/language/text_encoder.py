"""CLIP's text tower: a small GPT-2, asked at the end of a text what it has read."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from minivlm.nn.attention import causal_mask
from minivlm.nn.transformer import Block, init_transformer


@dataclass(frozen=True)
class TextConfig:
    """Sizes of a CLIP text tower. `eot_id` ends a text; None: the highest id in a
    row does, as in OpenAI's code.
    """

    vocab_size: int
    context: int  # longest text in tokens, start and end included
    width: int
    layers: int
    heads: int
    hidden: int  # inside the MLP
    eot_id: int | None = None
    eps: float = 1e-5

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(
                f"width {self.width} is no multiple of heads {self.heads}."
            )
        if self.eot_id is not None and not 0 <= self.eot_id < self.vocab_size:
            raise ValueError(
                f"eot_id {self.eot_id} is not among the {self.vocab_size} token ids."
            )


class TextEncoder(nn.Module):
    """A causal transformer over tokens; the text's feature is what stands at its
    end-of-text token (CLIP, section 2.4).
    """

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config, width = config, config.width
        self.token_embedding = nn.Embedding(config.vocab_size, width)
        self.positions = nn.Parameter(0.01 * torch.randn(config.context, width))
        self.blocks = nn.ModuleList(
            Block(width, config.heads, config.hidden, config.eps)
            for _ in range(config.layers)
        )
        self.norm_after = nn.LayerNorm(width, config.eps)
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        init_transformer(self.blocks, width)

    def forward(
        self, ids: Int[Tensor, "b t"], keep: Bool[Tensor, "b t"] | None = None
    ) -> Float[Tensor, "b t d"]:
        """Every token's final feature. `keep` False hides padding; texts padded on
        the right do not need it.
        """
        x = self.token_embedding(ids) + self.positions[: ids.shape[1]]
        mask = None if keep is None else causal_mask(keep)
        for block in self.blocks:
            x = block(x, causal=True, mask=mask)
        return self.norm_after(x)

    def pool(
        self, features: Float[Tensor, "b t d"], ids: Int[Tensor, "b t"]
    ) -> Float[Tensor, "b d"]:
        """The feature at each text's first end-of-text token: the only place that
        has read the whole text.
        """
        eot = self.config.eot_id
        end = (ids if eot is None else (ids == eot).int()).argmax(dim=1)
        return features[torch.arange(len(ids), device=ids.device), end]
