"""Sheets of drawn images, a row for each class, as SVG with the names of the classes beside them."""

from __future__ import annotations

import base64
import html
import struct
from collections.abc import Collection, Sequence

from expunge.report import wording
from expunge.report.figures import canvas, labels
from expunge.report.figures.maps import PICTURE

WIDTH = 300


def drawn(about: str, classes: Sequence[str], image: object, marked: Collection[int] = ()) -> str:
    """The figure as SVG; empty where the picture is no PNG.

    Args:
        about: what it shows, for those who cannot see it.
        classes: what the rows were asked to be, downwards.
        image: a PNG in a data URI whose rows are as high as each other.
        marked: numbers of the rows whose names are set off.
    """
    if not (isinstance(image, str) and PICTURE.fullmatch(image) and classes):
        return ""
    try:
        wide, high = struct.unpack(">II", base64.b64decode(image.partition(",")[2][:64])[16:24])
    except (ValueError, struct.error):
        return ""
    if not (wide and high):
        return ""
    names = [wording.label(name, 12) for name in classes]
    left = max(labels.text_width(name, canvas.SMALL, True) for name in names) + 8
    height = WIDTH * high / wide
    step = height / len(names)
    looks = [
        'fill="var(--forget)" font-weight="700"' if i in marked else 'fill="var(--ink)"' for i in range(len(names))
    ]
    texts = [
        f'<text x="{left - 8:.1f}" y="{step * (i + 0.5) + 4:.1f}" text-anchor="end" font-size="{canvas.SMALL}" '
        f"{look}>{html.escape(name)}</text>"
        for i, (name, look) in enumerate(zip(names, looks))
    ]
    whole = f"0 0 {left + WIDTH:.0f} {height:.0f}"
    picture = f'<image href="{image}" x="{left:.1f}" y="0" width="{WIDTH}" height="{height:.1f}"/>'
    head = (
        f'<svg viewBox="{whole}" role="img" aria-label="{html.escape(about)}" style="max-width:{left + WIDTH:.0f}px">'
    )
    return "\n".join([head, *texts, picture, "</svg>"])
