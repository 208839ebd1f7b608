"""Pretrained parts, small enough to ship: an eye that knows the world's pictures, a language model that has read its texts.

- `load(name)`, `read(name)`: a backbone (`language-cpu`, `vision-cpu`, ...), checked against its card
- `card(name)`: recipe, seed, losses, accuracy by task, hash
- `python -m minivlm.backbones train NAME` makes one, and goes on where it stopped
"""

from minivlm.backbones.language import world_tokenizer
from minivlm.backbones.store import BackboneError, built, card, folder, load, read

__all__ = ["BackboneError", "built", "card", "folder", "load", "read", "world_tokenizer"]
