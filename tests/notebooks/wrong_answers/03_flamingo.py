"""Wrong answers to the exercises of 03_flamingo, and words of the message each must get."""

WRONG = {
    "Exercise 1": [
        (
            "def sees(ids, image):\n    places = ids == image\n"
            "    return places.cumsum(0)[:, None] >= torch.arange(1, places.sum() + 1)",
            "not all of them",
        ),
        (
            "def sees(ids, image):\n    places = ids == image\n    before = places.cumsum(0) - places.long()\n"
            "    return before[:, None] == torch.arange(1, places.sum() + 1)",
            "own token",
        ),
        (
            "def sees(ids, image):\n    number = (ids == image).cumsum(0).clamp(min=1)\n"
            "    return number[:, None] == torch.arange(1, number.max() + 1)",
            "before the first image",
        ),
    ],
    "Exercise 2": [
        (
            "def attend(scores, mask, values):\n    return scores.masked_fill(~mask, -1e9).softmax(-1) @ values",
            "mean of all",
        ),
        (
            "def attend(scores, mask, values):\n    return scores.masked_fill(~mask, -torch.inf).softmax(-1) @ values",
            "nan",
        ),
        (
            "def attend(scores, mask, values):\n"
            "    weights = scores.masked_fill(~mask, -torch.inf).softmax(-1)\n"
            "    return (weights @ values).masked_fill(~mask.any(-1, keepdim=True), 0.0)",
            "gradient is nan",
        ),
    ],
    "Exercise 3": [
        (
            "def choose(query, pool, k):\n    return F.cosine_similarity(query[None], pool).topk(k).indices.tolist()",
            "similar comes last",
        ),
        (
            "def choose(query, pool, k):\n    return (pool @ query).topk(k).indices.flip(0).tolist()",
            "different lengths",
        ),
        (
            "def choose(query, pool, k):\n"
            "    return F.cosine_similarity(query[None], pool).topk(k, largest=False).indices.tolist()",
            "least similar",
        ),
    ],
}
