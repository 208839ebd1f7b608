"""Wrong answers to the exercise of 00a_start_here, and words of the message each must get."""

WRONG = {
    "Exercise 1": [
        (
            "def share_of(scenes, colour):\n    return (scenes.colour == colour).sum().item() / scenes.present.sum().item()",
            "counted as red",
        ),
        (
            "def share_of(scenes, colour):\n    return ((scenes.colour == colour) & scenes.present).float().mean().item()",
            "all slots",
        ),
        (
            "def share_of(scenes, colour):\n"
            "    return ((scenes.colour == colour) & scenes.present).any(1).float().mean().item()",
            "share of scenes",
        ),
    ],
}
