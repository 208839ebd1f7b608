"""Wrong answers to the exercises of 04_blip2, and words of the message each must get."""

WRONG = {
    "Exercise 1": [
        (
            "def alike(image, text):\n    return torch.einsum('bqe,ke->bkq', image, text).mean(-1)",
            "not the mean of all",
        ),
        (
            "def alike(image, text):\n    return torch.einsum('bqe,ke->bkq', image, text).amax(-1).squeeze()",
            "one text is a batch too",
        ),
        (
            "def alike(image, text):\n    return torch.einsum('bqe,ke->kbq', image, text).amax(-1)",
            "the rows are images",
        ),
    ],
    "Exercise 2": [
        (
            "def writing(queries, keep):\n    b, t = keep.shape\n"
            "    mask = torch.ones(b, queries + t, queries + t, dtype=torch.bool).tril()\n"
            "    mask[:, :queries, :queries] = True\n    return mask",
            "nobody sees padding",
        ),
        (
            "def writing(queries, keep):\n    b, t = keep.shape\n"
            "    mask = torch.ones(b, queries + t, queries + t, dtype=torch.bool).tril()\n"
            "    mask[:, :, queries:] &= keep[:, None]\n    return mask",
            "queries have no order",
        ),
        (
            "def writing(queries, keep):\n    mask = itm_mask(queries, keep)\n"
            "    mask[:, :queries, queries:] = False\n    return mask",
            "must not see the words after it",
        ),
        ("def writing(queries, keep):\n    return itm_mask(queries, keep)", "mask of ITM"),
        ("def writing(queries, keep):\n    return itc_mask(queries, keep)", "mask of ITC"),
    ],
    "Exercise 3": [
        ("def reached(mask, layers):\n    return mask | torch.eye(len(mask), dtype=torch.bool)", "one layer lets through"),
        (
            "def reached(mask, layers):\n    known = torch.eye(len(mask), dtype=torch.bool)\n"
            "    for _ in range(layers):\n        known = (mask.float() @ known.float()) > 0\n    return known",
            "residual stream",
        ),
        (
            "def reached(mask, layers):\n    itself = torch.eye(len(mask), dtype=torch.bool)\n"
            "    known = mask | itself\n    for _ in range(layers):\n"
            "        known = ((mask | itself).float() @ known.float()) > 0\n    return known",
            "one layer too many",
        ),
    ],
}
