"""Wrong answers to the exercises of 06_llava, and words of the message each must get."""

WRONG = {
    "Exercise 1": [
        (
            "def pictures_that_fit(config, words):\n"
            "    return (config.language.context - words) // (config.vision.grid**2 + 1)",
            "class token is dropped",
        ),
        (
            "def pictures_that_fit(config, words):\n    return config.language.context // config.image_tokens",
            "words take places",
        ),
        (
            "def pictures_that_fit(config, words):\n    return (config.language.context - words) // config.vision.grid",
            "rows times",
        ),
    ],
    "Exercise 2": [
        (
            "def cut_and_join(embeddings, at, features):\n    pieces, start = [], 0\n"
            "    for place, image in zip(at, features):\n        pieces += [embeddings[start : place + 1], image]\n"
            "        start = place + 1\n    return torch.cat([*pieces, embeddings[start:]])",
            "own vector must go",
        ),
        (
            "def cut_and_join(embeddings, at, features):\n    pieces, start = [], 0\n"
            "    for place, image in zip(at, features):\n        pieces += [embeddings[start:place], image]\n"
            "        start = place + 1\n    return torch.cat(pieces)",
            "after the last image",
        ),
    ],
    "Exercise 3": [
        (
            "def image_last(turns):\n    return [(q.removeprefix('<image>\\n') + '\\n<image>', a) for q, a in turns]",
            "only the first turn",
        ),
        (
            "def image_last(turns):\n    (q, a), *later = turns\n"
            "    return [(q.removeprefix('<image>\\n') + '<image>', a), *later]",
            "line break",
        ),
    ],
}
