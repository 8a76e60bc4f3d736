"""Placing names beside points so that they do not cover each other."""

from __future__ import annotations

from collections.abc import Sequence

Box = tuple[float, float, float, float]


def text_width(text: str, size: float, bold: bool = False) -> float:
    """Roughly how wide `text` is at `size` pixels, in pixels; on the wide side."""
    return (0.7 if bold else 0.6) * size * len(text)


def place(
    points: Sequence[tuple[float, float]],
    names: Sequence[str],
    size: float,
    within: Box,
    taken: Sequence[Box] = (),
) -> list[tuple[float, float]]:
    """The lower left corner of each name, in the pixels of `points` (y upwards).

    Greedy: each name takes the nearest place, out of rings around its point, that covers least.

    Args:
        points: where the markers are.
        names: what to write, one for each point.
        size: of the font, in pixels.
        within: ``(left, bottom, right, top)`` that names should not leave.
        taken: boxes that names should not cover, besides markers and one another.
    """
    boxes: list[Box] = [(x - 6, y - 6, x + 6, y + 6) for x, y in points] + list(taken)
    corners = []
    for (x, y), name in zip(points, names):
        width, height = text_width(name, size), size * 1.15
        options = []
        for ring in (9.0, 20.0, 32.0, 46.0, 62.0):
            for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1)):
                left = x + ring * dx if dx > 0 else x - ring - width if dx < 0 else x - width / 2
                low = y + ring * dy - (height / 2 if dy == 0 else 0 if dy > 0 else height)
                box = (left, low, left + width, low + height)
                options.append((sum(_shared(box, b) for b in boxes) + 4 * _outside(box, within) + ring, box))
        best = min(options)[1]
        boxes.append(best)
        corners.append((best[0], best[1]))
    return corners


def _shared(a: Box, b: Box) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def _outside(box: Box, within: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1]) - _shared(box, within)
