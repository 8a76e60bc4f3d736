"""Numbers and names as people read them."""

from __future__ import annotations

import re
from typing import Any

MINUS = "−"


def figure(value: float | None, unit: str = "", signed: bool = False) -> str:
    """`value` without its unit: one decimal for percent, else what its size asks for; a dash for None."""
    if value is None:
        return "–"
    if unit == "%":
        text = f"{abs(value):.1f}"
    elif float(value).is_integer() and abs(value) < 1e6:
        text = f"{abs(value):,.0f}"
    elif abs(value) >= 10:
        text = f"{abs(value):,.0f}" if abs(value) >= 1000 else f"{abs(value):.1f}"
    elif abs(value) >= 0.001:
        text = f"{abs(value):.3f}"
    else:
        text = f"{abs(value):.1e}"
    zero = not text.strip("0.,")
    sign = MINUS if value < 0 and not zero else "+" if signed and not zero else ""
    return sign + text


def interval(low: float | None, high: float | None, unit: str = "") -> str:
    """``low to high``, or nothing where an end is missing."""
    return "" if low is None or high is None else f"{figure(low, unit)} to {figure(high, unit)}"


def seconds(value: float | None) -> str:
    """A duration in the unit that suits it."""
    if value is None:
        return "–"
    if value < 0.1:
        return f"{value * 1000:.0f} ms"
    if value < 100:
        return f"{value:.1f} s"
    if value < 6000:
        return f"{value / 60:.1f} min"
    return f"{value / 3600:.1f} h"


def ratio(value: float | None) -> str:
    """A time relative to retraining, in words; empty where unknown."""
    if value is None:
        return ""
    if value >= 1.5:
        return f"{value:.1f} × retraining"
    percent = value * 100
    return f"{percent:.0f} % of retraining" if percent >= 1 else f"{percent:.1g} % of retraining"


def label(name: object, longest: int = 24) -> str:
    """`name` on one line, without control characters, cut with an ellipsis beyond `longest` characters."""
    text = re.sub(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\s]+", " ", str(name)).strip() or "(no name)"
    return text if len(text) <= longest else text[: longest - 1].rstrip() + "…"


def class_name(results: dict[str, Any], index: object) -> str:
    """The name of the class with label `index`, or the label itself where there is no name."""
    classes = results["question"].get("classes") or []
    if isinstance(index, int) and not isinstance(index, bool) and 0 <= index < len(classes):
        return str(classes[index])
    return str(index)
