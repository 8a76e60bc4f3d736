"""From a matplotlib figure to an SVG that follows the page: its colours, its font, its light and dark."""

from __future__ import annotations

import html
import io
import re
import warnings
from contextlib import AbstractContextManager

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

# CSS variables of the page. A figure is drawn in colours that stand for them and are replaced at the end.
VARIABLES = (
    *("ink", "muted", "line", "surface", "accent", "heat", "forget", "unseen", "retain"),
    *("a1", "a2", "a3", "a4", "a5", "v-within", "v-partly", "v-none", "v-over", "v-damaged", "v-unknown"),
)
FONT = 12.0
SMALL = 10.5


def color(variable: str) -> str:
    """The colour that stands for the CSS variable ``--variable`` until the figure becomes SVG.

    Args:
        variable: one of `VARIABLES`.
    """
    return f"#fe01{VARIABLES.index(variable):02x}"


def axes(width: float, height: float, margins: tuple[float, float, float, float]) -> tuple[Figure, Axes]:
    """A figure with one pair of axes, bare but for a thin frame on the left and below.

    Args:
        width: in CSS pixels.
        height: in CSS pixels.
        margins: space left, right, below and above the axes, in CSS pixels.
    """
    left, right, bottom, top = margins
    figure = Figure(figsize=(width / 72, height / 72), dpi=72)
    figure.patch.set_visible(False)
    box = (left / width, bottom / height, (width - left - right) / width, (height - bottom - top) / height)
    ax = figure.add_axes(box)
    ax.patch.set_visible(False)
    for side, spine in ax.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(color("line"))
    ax.tick_params(colors=color("muted"), labelsize=SMALL, length=0, pad=5)
    ax.set_axisbelow(True)
    return figure, ax


def drawing() -> AbstractContextManager[None]:
    """A context in which matplotlib draws alike on every machine, whatever the user's own settings."""
    ours = {"text.parse_math": False, "svg.fonttype": "none", "svg.hashsalt": "expunge", "font.size": FONT}
    alike: AbstractContextManager[None] = matplotlib.style.context(["default", ours])
    return alike


def svg(figure: Figure, name: str, about: str, fixed: bool = False) -> str:
    """The figure as an inline ``<svg>`` element.

    Args:
        figure: what was drawn inside `drawing`.
        name: unique on the page; every id inside begins with it.
        about: what the picture shows, for those who cannot see it.
        fixed: hardly narrower than its natural width (for figures of many cells, in a box that scrolls).
    """
    out = io.StringIO()
    with warnings.catch_warnings():
        # Only the layout's font lacks the glyph; the page draws the text in the reader's own font.
        warnings.filterwarnings("ignore", message="Glyph .* missing", category=UserWarning)
        FigureCanvasSVG(figure).print_svg(out, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r"<style .*?</style>", "", text, flags=re.S)
    text = re.sub(r"<!--.*?-->\n?", "", text, flags=re.S)
    text = re.sub(r"#fe01([0-9a-f]{2})", lambda m: f"var(--{VARIABLES[int(m[1], 16)]})", text)
    text = re.sub(r"(font: [^;\"]*?px)[^;\"]*", r"\1 var(--font)", text)
    text = re.sub(r'(?<= id=")([^"]+)', rf"{name}-\1", text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", text)
    text = re.sub(r'xlink:href="#([^"]+)"', rf'href="#{name}-\1"', text)
    text = re.sub(r"[ \t]*\n[ \t]*", "\n", text)
    box = re.search(r'viewBox="[^"]+"', text)
    width = figure.get_figwidth() * 72
    style = f"max-width:{width * 1.25:.0f}px" + (f";min-width:{width * 0.9:.0f}px" if fixed else "")
    head = f'<svg {box[0] if box else ""} role="img" aria-label="{html.escape(about)}" style="{style}">'
    return head + text[text.index(">") + 1 :].strip()
