"""Wrong answers to the exercises of 07_instructblip, and words of the message each must get."""

WRONG = {
    "Exercise 1": [
        ("def shares_by(sizes, power):\n    return [size**power for size in sizes]", "sum to one"),
        (
            "def shares_by(sizes, power):\n    return [size**power / sum(sizes) ** power for size in sizes]",
            "sum of the powers",
        ),
        ("def shares_by(sizes, power):\n    return shares(sizes)", "always the root"),
    ],
    "Exercise 2": [
        (
            "def found_by_queries(qformer, seen, asked, keep):\n"
            "    return qformer(seen, asked, itm_mask(qformer.config.queries, keep))[1]",
            "those are the words",
        ),
        ("def found_by_queries(qformer, seen, asked, keep):\n    return qformer(seen, asked)[0]", "padding is read"),
        (
            "def found_by_queries(qformer, seen, asked, keep):\n"
            "    return qformer(seen, asked, itm_mask(qformer.config.queries, keep).tril())[0]",
            "causal mask",
        ),
        ("def found_by_queries(qformer, seen, asked, keep):\n    return qformer(seen)[0]", "that is a BLIP-2"),
    ],
    "Exercise 3": [
        (
            "def likeliest(scores, labels):\n"
            "    lost = F.cross_entropy(scores.mT, labels, reduction='none', ignore_index=-100)\n"
            "    return int(lost.sum(-1).argmin())",
            "next token",
        ),
        (
            "def likeliest(scores, labels):\n"
            "    lost = F.cross_entropy(scores[:, :-1].mT, labels[:, 1:], reduction='none', ignore_index=-100)\n"
            "    return int((lost.sum(-1) / (labels != -100).sum(-1)).argmin())",
            "mean",
        ),
    ],
}
