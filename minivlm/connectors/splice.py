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
        ValueError: features of another width; more places than features, or fewer. (On
            a GPU these are not counted, because the step would have to wait; whoever
            made the batch counted.)
    """
    if features.shape[2] != embeddings.shape[2]:
        raise ValueError(
            f"features are {features.shape[2]} wide, and the text's embeddings"
            f" {embeddings.shape[2]}; a connector brings one to the width of the other."
        )
    wanted = None if places.is_cuda else int(places.sum())
    if wanted not in (None, features.shape[0] * features.shape[1]):
        images, tokens, _ = features.shape
        raise ValueError(
            f"the text keeps {wanted} places for image tokens; {images} images of"
            f" {tokens} tokens each fill {images * tokens}. A text needs {tokens}"
            " places for each of its images, and the batch each image once."
        )
    # In mixed precision a connector gives bfloat16, an embedding table float32.
    return embeddings.masked_scatter(places[:, :, None], features.to(embeddings.dtype))
