"""Wrong answers to the exercises of 02_blip, and words of the message each must get."""

WRONG = {
    "Exercise 1": [
        ("def cost_of_guessing(wrong):\n    return math.log(2)", "coin is not the best guess"),
        ("def cost_of_guessing(wrong):\n    return math.log(1 + wrong) / (1 + wrong)", "wrong pairs have a cost too"),
        (
            "def cost_of_guessing(wrong):\n    p = 1 / (1 + wrong)\n"
            "    return -p * math.log2(p) - (1 - p) * math.log2(1 - p)",
            "in bits",
        ),
    ],
    "Exercise 2": [
        (
            "def nucleus_of(probabilities, p):\n    values, order = probabilities.sort(descending=True)\n"
            "    inside = torch.empty_like(probabilities, dtype=torch.bool)\n"
            "    inside[order] = values.cumsum(0) <= p\n    return inside",
            "crosses p belongs to it",
        ),
        (
            "def nucleus_of(probabilities, p):\n    values = probabilities.sort(descending=True).values\n"
            "    return values.cumsum(0) - values < p",
            "sorted order",
        ),
        ("def nucleus_of(probabilities, p):\n    return probabilities.cumsum(0) - probabilities < p", "likeliest come first"),
    ],
    "Exercise 3": [
        (
            "def chances(similarity, image_id):\n    weights = similarity.softmax(dim=1) + 1e-4\n"
            "    weights = weights.masked_fill(torch.eye(len(weights)).bool(), 0.0)\n"
            "    return weights / weights.sum(dim=1, keepdim=True)",
            "same image can still be drawn",
        ),
        (
            "def chances(similarity, image_id):\n    weights = similarity.softmax(dim=1) + 1e-4\n"
            "    return weights.masked_fill(image_id[:, None] == image_id, 0.0)",
            "sum to one",
        ),
    ],
    "Exercise 4": [
        (
            "def forgiven(thrown, verdicts):\n"
            "    false = [t for t, v in zip(thrown, verdicts) if v == 'false']\n    return sum(false) / max(1, len(false))",
            "that was thrown out",
        ),
        (
            "def forgiven(thrown, verdicts):\n"
            "    return sum(v == 'false' and not t for t, v in zip(thrown, verdicts)) / len(thrown)",
            "not of all",
        ),
        (
            "def forgiven(thrown, verdicts):\n"
            "    false = [t for t, v in zip(thrown, verdicts) if v != 'true']\n"
            "    return false.count(False) / max(1, len(false))",
            "part of the truth",
        ),
    ],
}
