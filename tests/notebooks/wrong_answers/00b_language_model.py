"""Wrong answers to the exercises of 00b_language_model, and words of the message each must get."""

WRONG = {
    "Exercise 1": [
        (
            "def cache_bytes(config, tokens):\n    return 4 * config.layers * config.heads * config.hd * tokens",
            "not query heads",
        ),
        (
            "def cache_bytes(config, tokens):\n    return 2 * config.layers * config.kv_heads * config.hd * tokens",
            "twice",
        ),
        ("def cache_bytes(config, tokens):\n    return 4 * config.kv_heads * config.hd * tokens", "every layer"),
    ],
    "Exercise 2": [
        (
            "def top_k_probabilities(logits, k, temperature):\n    p = (logits / temperature).softmax(-1)\n"
            "    return p.masked_fill(p < p.topk(k).values[:, -1:], 0.0)",
            "sum to one",
        ),
        (
            "def top_k_probabilities(logits, k, temperature):\n    return (logits / temperature).softmax(-1)",
            "none is cut",
        ),
        (
            "def top_k_probabilities(logits, k, temperature):\n"
            "    return (logits / temperature).topk(k).values.softmax(-1)",
            "shape",
        ),
    ],
    "Exercise 3": [
        (
            "def answer_labels(ids, keep, start):\n"
            "    return ids.masked_fill(torch.arange(ids.shape[1]) < start[:, None], -100)",
            "padding is learned",
        ),
        (
            "def answer_labels(ids, keep, start):\n    before = torch.arange(ids.shape[1]) <= start[:, None]\n"
            "    return ids.masked_fill(before | ~keep, -100)",
            "first word",
        ),
    ],
}
