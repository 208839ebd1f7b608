"""Wrong answers to the exercises of 01_clip, and words of the message each must get."""

WRONG = {
    "Exercise 1": [
        ("def image_to_text_loss(logits):\n    return F.cross_entropy(logits.T, torch.arange(len(logits)))", "transpose"),
        ("def image_to_text_loss(logits):\n    return contrastive_loss(logits)", "only images choose"),
        ("def image_to_text_loss(logits):\n    F.cross_entropy(logits, torch.arange(len(logits)))", "is there a return"),
        (
            "def image_to_text_loss(logits):\n    return 2 * F.cross_entropy(logits, torch.arange(len(logits)))",
            "values are not",
        ),
    ],
    "Exercise 2": [
        ("def multi_positive_loss(logits, same):\n    return contrastive_loss(logits)", "still punished"),
        (
            "def multi_positive_loss(logits, same):\n    target = same.float()\n"
            "    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2",
            "must sum to one",
        ),
        (
            "def multi_positive_loss(logits, same):\n"
            "    return contrastive_loss(logits.masked_fill(same & ~torch.eye(len(same)).bool(), -torch.inf))",
            "another repair",
        ),
    ],
    "Exercise 3": [
        (
            "def patches_shuffled(images, order, patch_size):\n"
            "    p = patchify(images, patch_size)[:, order.argsort()]\n"
            "    sizes = dict(h=images.shape[2] // patch_size, p=patch_size, q=patch_size)\n"
            "    return rearrange(p, 'b (h w) (c p q) -> b c (h p) (w q)', **sizes)",
            "wrong way round",
        ),
        ("def patches_shuffled(images, order, patch_size):\n    return patchify(images, patch_size)[:, order]", "shape"),
    ],
    "Exercise 4": [
        (
            "def binding_accuracy(images, right, wrong):\n"
            "    return ((images * right).sum(-1) > (images * wrong).sum(-1)).float().mean().item()",
            "not zero",
        ),
        (
            "def binding_accuracy(images, right, wrong):\n"
            "    return (images @ right.T > images @ wrong.T).float().mean().item()",
            "not with all",
        ),
    ],
}
