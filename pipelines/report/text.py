"""Numbers as a reader wants them."""

from __future__ import annotations

import math

_ABBREVIATIONS = {"clip": "CLIP", "nsfw": "NSFW", "url": "URL", "html": "HTML", "ocr": "OCR"}

MISSING = "\u2013"
MINUS = "\u2212"


def _absent(value: float | None) -> bool:
    return value is None or not math.isfinite(value)


def integer(value: float | None) -> str:
    """12345 -> "12,345"."""
    if value is None or not math.isfinite(value):
        return MISSING
    return f"{value:,.0f}".replace("-", MINUS)


def counted(value: float | None, one: str, more: str = "") -> str:
    """A number with what it counts: "1 row", "1,234 rows", "2 boxes" of ("box", "boxes")."""
    return f"{integer(value)} {one if value == 1 else more or f'{one}s'}"


def percent(value: float | None, digits: int = 1) -> str:
    """A share in 0..1 as "41.5%"; never rounds a share below 1 up to 100% nor above 0 down to 0."""
    if value is None or not math.isfinite(value):
        return MISSING
    edge = 0.5 * 10 ** -(digits + 2)
    if 0 < value < edge:
        return f"<{10**-digits:.{digits}f}%"
    if 1 - edge < value < 1:
        return f">{100 - 10**-digits:.{digits}f}%"
    return f"{100 * value:.{digits}f}%".replace("-", MINUS)


def number(value: float | None) -> str:
    """Three significant digits, with a true minus sign: 0.2834 -> "0.283", 1234.5 -> "1,234"."""
    if value is None or not math.isfinite(value):
        return MISSING
    size = abs(value)
    if size >= 100 or float(value).is_integer():
        shown = f"{value:,.0f}"
    elif size >= 10:
        shown = f"{value:.1f}"
    elif size >= 1:
        shown = f"{value:.2f}"
    elif size >= 0.001:
        shown = f"{value:.3f}"
    else:
        shown = f"{value:.1e}"
    return shown.replace("-", MINUS)


def tick(value: float | None) -> str:
    """A round value without trailing zeros: 0.2 rather than "0.200"."""
    shown = number(value)
    if "." in shown and "e" not in shown:
        shown = shown.rstrip("0").rstrip(".")
    return shown


def short(value: float | None) -> str:
    """A round value for an axis: 1500000 -> "1.5M", 20000 -> "20k", others as `tick`."""
    if value is None or not math.isfinite(value):
        return MISSING
    for least, unit, letter in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if abs(value) >= least:
            return f"{value / unit:g}{letter}".replace("-", MINUS)
    return tick(value)


def points(value: float | None) -> str:
    """A difference of shares as signed percentage points: 0.412 -> "+41.2"."""
    if value is None or not math.isfinite(value):
        return MISSING
    return f"{100 * value:+.1f}".replace("-", MINUS)


def interval(low: float | None, high: float | None, signed: bool = False) -> str:
    """Limits of an interval of shares in percent, "[36.2, 46.0]"; empty where there is none."""
    if _absent(low) or _absent(high):
        return ""
    form = "{:+.1f}" if signed else "{:.1f}"
    limits = ", ".join(form.format(100 * limit) for limit in (low, high) if limit is not None)
    return f"[{limits}]".replace("-", MINUS)


def seconds(value: float | None) -> str:
    """A duration as "48 s", "3 min 20 s" or "2 h 05 min"."""
    if value is None or not math.isfinite(value):
        return MISSING
    if value < 10:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def size(value: float | None) -> str:
    """Bytes as "734 MiB" or "1.40 GiB"."""
    if value is None or not math.isfinite(value):
        return MISSING
    if value < 1 << 10:
        return f"{value:.0f} bytes"
    if value < 1 << 20:
        return f"{value / 1024:,.0f} KiB"
    if value < 1 << 30:
        return f"{value / (1 << 20):,.0f} MiB"
    return f"{value / (1 << 30):,.2f} GiB"


def words(name: str) -> str:
    """An identifier as words: "clip_similarity" -> "CLIP similarity"."""
    return " ".join(_ABBREVIATIONS.get(word, word) for word in name.split("_"))
