"""Where models look: example images, and over each a heat map for every model or explainer."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

from expunge.report import wording
from expunge.report.figures import canvas, labels

SIDE, GAP = 84, 8
PICTURE = re.compile(r"data:image/png;base64,[A-Za-z0-9+/]+={0,2}")
Uri = str | None


def maps(
    name: str,
    about: str,
    rows: Sequence[str],
    columns: Sequence[str],
    images: Sequence[Uri],
    heats: Sequence[Sequence[Uri]],
) -> str:
    """The figure as SVG: the input, then a column for each model with its map over a pale grey copy of the input.

    A map is used as a mask for one of the page's colours, so that it follows light and dark.

    Args:
        name: unique on the page.
        about: what it shows, for those who cannot see it.
        rows: names of the examples, downwards.
        columns: names of the models or explainers; the input's own column needs none.
        images: the example of each row as a PNG in a data URI; None or anything else leaves a dash.
        heats: ``heats[row][column]``, a grey PNG in a data URI: white where the model looks.
    """
    row_texts = [wording.label(row, 26) for row in rows]
    titles = ["input", *(wording.label(column, 22) for column in columns)]
    cell = max(SIDE, *(labels.text_width(title, canvas.SMALL) for title in titles))
    left = max((labels.text_width(text, canvas.SMALL) for text in row_texts), default=0) + 12
    step = SIDE + GAP
    width, height = left + (cell + GAP) * len(titles), 22 + step * len(rows)
    parts = [f'<filter id="{name}-grey"><feColorMatrix type="saturate" values="0"/></filter>']
    parts += [_text(left + (cell + GAP) * i + cell / 2, 14, title, "middle", "ink") for i, title in enumerate(titles)]
    for i, (text, image) in enumerate(zip(row_texts, images)):
        top = 22 + step * i
        parts.append(_text(left - 10, top + SIDE / 2 + 4, text, "end", "ink"))
        spots = [left + (cell + GAP) * j + (cell - SIDE) / 2 for j in range(len(titles))]
        parts += _image(spots[0], top, image)
        for j, heat in enumerate(heats[i]):
            parts += _map(name, f"{name}-{i}-{j}", spots[j + 1], top, image, heat)
    style = f"max-width:{width * 1.25:.0f}px;min-width:{width * 0.9:.0f}px"
    head = f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{html.escape(about)}" style="{style}">'
    return head + "\n" + "\n".join(parts) + "\n</svg>"


def _text(x: float, y: float, text: str, anchor: str, tint: str) -> str:
    look = f"font: {canvas.SMALL}px var(--font); fill: var(--{tint})"
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" style="{look}">{html.escape(text)}</text>'


def _place(x: float, y: float) -> str:
    return f'x="{x:.1f}" y="{y:.1f}" width="{SIDE}" height="{SIDE}"'


def _image(x: float, y: float, image: Uri) -> list[str]:
    if not _is_picture(image):
        return [_text(x + SIDE / 2, y + SIDE / 2 + 4, "–", "middle", "muted")]
    return [f'<image {_place(x, y)} href="{image}" style="image-rendering: pixelated"/>']


def _map(name: str, mine: str, x: float, y: float, image: Uri, heat: Uri) -> list[str]:
    if not _is_picture(heat):
        return [_text(x + SIDE / 2, y + SIDE / 2 + 4, "–", "middle", "muted")]
    mask = f'<mask id="{mine}" maskUnits="userSpaceOnUse" {_place(x, y)}><image {_place(x, y)} href="{heat}"/></mask>'
    look = f"image-rendering: pixelated; filter: url(#{name}-grey); opacity: 0.6"
    under = [f'<image {_place(x, y)} href="{image}" style="{look}"/>'] if _is_picture(image) else []
    over = f'<rect {_place(x, y)} mask="url(#{mine})" style="fill: var(--forget); opacity: 0.9"/>'
    return [mask, *under, over]


def _is_picture(uri: Uri) -> bool:
    return isinstance(uri, str) and PICTURE.fullmatch(uri) is not None
