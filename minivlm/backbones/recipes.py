"""The recipe of each backbone. A change makes another backbone: give it a new version, never change one in place."""

from minivlm.backbones.language import LanguageRecipe
from minivlm.backbones.vision import VisionRecipe

#: Name -> recipe. The name ends in its size; its version is part of its folder's name.
RECIPES: dict[str, LanguageRecipe | VisionRecipe] = {
    "language-cpu": LanguageRecipe(
        width=128, layers=4, heads=4, hidden=320, steps=10000, batch=64, lr=2e-3, warmup=200
    ),
    "language-gpu": LanguageRecipe(
        width=384, layers=8, heads=6, hidden=1024, steps=20000, batch=256, lr=1e-3, warmup=500, context=512
    ),
    "vision-cpu": VisionRecipe(
        width=128, layers=4, heads=4, hidden=320, text_layers=2, image_size=32, patch_size=8, steps=7000, batch=128,
        lr=1e-3, warmup=200,
    ),
    "vision-gpu": VisionRecipe(
        width=384, layers=8, heads=6, hidden=1536, text_layers=4, image_size=64, patch_size=8, steps=20000, batch=512,
        lr=5e-4, warmup=1000,
    ),
}  # fmt: skip

#: The kind of backbone -> the version of its recipes.
VERSIONS = {"language": "v2", "vision": "v1"}


def version(name: str) -> str:
    """The version of a backbone: `v2` of `language-cpu`."""
    return VERSIONS[name.split("-")[0]]
