"""Wrong answers to the exercises of 05_palm_e, and words of the message each must get."""

WRONG = {
    "Exercise 1": [
        (
            "def places(text, tokens):\n"
            "    return sum(tokens[k] for k in set(re.findall(r'<([a-z]+)(?:_\\d+)?>', text)))",
            "each kind counts",
        ),
        (
            "def places(text, tokens):\n    return len(re.findall(r'<([a-z]+)(?:_\\d+)?>', text))",
            "as many places as its encoder",
        ),
        (
            "def places(text, tokens):\n"
            "    return sum(tokens[n.split('_')[0]] for n in set(re.findall(r'<(\\w+)>', text)))",
            "comes twice",
        ),
    ],
    "Exercise 2": [
        ("def grounded(says, can):\n    return (says.exp() * can).argmax(-1)", "the answer is -1"),
        (
            "def grounded(says, can):\n    return torch.where(can.sum(-1) > 0, (says * can).argmax(-1), -1)",
            "logarithms",
        ),
        ("def grounded(says, can):\n    return torch.where(can.sum(-1) > 0, can.argmax(-1), -1)", "likely to be said"),
    ],
    "Exercise 3": [
        (
            "def better(one, other):\n"
            "    return int(one.sum()), int(other.sum()), float(one.float().mean() - other.float().mean())",
            "did not reach it",
        ),
        (
            "def better(one, other):\n    a, b = int((one & ~other).sum()), int((other & ~one).sum())\n"
            "    return a, b, (a - b) / int((one != other).sum())",
            "out of all goals",
        ),
        (
            "def better(one, other):\n    gain = float(one.float().mean() - other.float().mean())\n"
            "    return int((other & ~one).sum()), int((one & ~other).sum()), gain",
            "first those that only the first",
        ),
    ],
}
