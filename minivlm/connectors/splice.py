"""Images among words: features take the places that were kept for them."""

from jaxtyping import Bool, Float
from torch import Tensor


def splice(
    embeddings: Float[Tensor, "b t d"],
    places: Bool[Tensor, "b t"],
    features: Float[Tensor, "images n d"],
) -> Float[Tensor, "b t d"]:
    """The embeddings of a text with `features` at its `places`, in reading order: row
    by row, the first image's first.

    Raises:
        ValueError: more places than features, or fewer. (On a GPU it is not looked at,
            because the step would have to wait; whoever made the batch counted.)
    """
    wanted = None if places.is_cuda else int(places.sum())
    if wanted not in (None, features.shape[0] * features.shape[1]):
        images, tokens, _ = features.shape
        raise ValueError(
            f"the text keeps {wanted} places for image tokens; {images} images of"
            f" {tokens} tokens each fill {images * tokens}. A text needs {tokens}"
            " places for each of its images, and the batch each image once."
        )
    return embeddings.masked_scatter(places[:, :, None], features)
