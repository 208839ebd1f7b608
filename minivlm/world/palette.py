"""The things of the world: eight colours, eight shapes, two sizes. A word is its place in the table."""

#: Colour word -> RGB in [0, 1]. They differ in brightness as well as in hue, and stand out on the light background.
COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.84, 0.10, 0.14),
    "orange": (0.96, 0.52, 0.05),
    "yellow": (0.98, 0.84, 0.08),
    "green": (0.13, 0.60, 0.25),
    "blue": (0.12, 0.33, 0.85),
    "purple": (0.48, 0.16, 0.63),
    "pink": (0.98, 0.55, 0.76),
    "black": (0.10, 0.10, 0.12),
}

#: Shape words; `minivlm.world.render.DISTANCES` holds a signed distance function for each.
SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "diamond", "cross", "ring", "star", "moon")

#: Size word -> range of radii, as a fraction of the image's shorter side. The gap keeps the words unambiguous.
SIZES: dict[str, tuple[float, float]] = {"small": (0.15, 0.20), "large": (0.26, 0.34)}
