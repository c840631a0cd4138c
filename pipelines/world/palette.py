"""Colours of the world, in sRGB 0..255, with one name each.

Object colours are saturated and background colours are grey or earthy, so that no object can melt
into a background: `WorldConfig` refuses a palette that breaks this.
"""

RGB = tuple[int, int, int]

OBJECT_COLOURS: dict[str, RGB] = {
    "red": (214, 24, 36),
    "green": (24, 150, 44),
    "blue": (32, 64, 224),
    "yellow": (250, 226, 20),
    "orange": (250, 124, 8),
    "purple": (132, 32, 180),
    "pink": (255, 128, 196),
    "cyan": (24, 212, 232),
    "lime": (164, 240, 60),
    "brown": (112, 56, 16),
    "teal": (0, 112, 120),
    "magenta": (232, 16, 168),
}

BACKGROUND_COLOURS: dict[str, RGB] = {
    "white": (244, 244, 244),
    "gray": (140, 140, 140),
    "black": (22, 22, 22),
    "tan": (196, 166, 122),
    "slate": (84, 96, 118),
    "cream": (238, 226, 192),
}

# How far a gradient or a stripe may move a background from its own colour, per channel. Towards
# the middle of the range, so that no channel is clipped.
BACKGROUND_SHADE = {"white": -44, "gray": 26, "black": 40, "tan": -34, "slate": -30, "cream": -36}

BACKGROUND_STYLES = ("plain", "gradient", "striped", "checkered")
SIZES: dict[str, float] = {"small": 3.6 / 16, "medium": 4.8 / 16, "large": 6.25 / 16}
"""Half-extent of an object, as a share of its cell."""


def distance(a: RGB, b: RGB) -> float:
    """Euclidean distance of two sRGB colours, 0..441."""
    return float(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) ** 0.5)


def shaded(name: str) -> RGB:
    """The far shade of a background colour, which gradients and stripes reach."""
    r, g, b = BACKGROUND_COLOURS[name]
    shade = BACKGROUND_SHADE[name]
    return (r + shade, g + shade, b + shade)
