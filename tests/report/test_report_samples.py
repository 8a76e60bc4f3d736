"""Sheets of drawn images on the page: where they are shown, and what is never put on it."""

from __future__ import annotations

import base64
import io
import xml.etree.ElementTree as ET
from typing import Any

import pytest
from PIL import Image

from expunge.report import tables
from expunge.report.figures.sheets import drawn
from expunge.report.gallery import samples


def picture(width: int = 40, height: int = 30) -> str:
    buffer = io.BytesIO()
    Image.new("L", (width, height)).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def parsed(svg: str) -> ET.Element:
    return ET.fromstring(svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))


def test_names_stand_beside_the_rows_of_a_sheet():
    svg = parsed(drawn("about", ["zero", "<b>&", "two"], picture(40, 30), {1}))
    texts = [node for node in svg.iter() if node.tag.endswith("text")]
    assert [node.text for node in texts] == ["zero", "<b>&", "two"]
    heights = [float(node.get("y")) for node in texts]
    image = next(node for node in svg.iter() if node.tag.endswith("image"))
    assert heights[1] - heights[0] == pytest.approx(float(image.get("height")) / 3, abs=0.1)
    assert float(image.get("width")) / float(image.get("height")) == pytest.approx(4 / 3, abs=0.01)
    assert [node.get("font-weight") for node in texts] == [None, "700", None]  # what was forgotten


@pytest.mark.parametrize(
    "image", ["https://example.org/a.png", 'data:image/png;base64,AA"onload="x', "data:image/png;base64,AAAA", None, 3]
)
def test_what_is_no_picture_is_left_out(image):
    assert drawn("about", ["a"], image) == ""


def test_the_section_is_there_for_denoisers_alone(results: dict[str, Any]):
    assert samples.sheets(results, tables.rows(results)) is None
    for entry in results["models"][:2]:
        entry["samples"] = {"image": picture(), "classes": [0, 1]}
    section = samples.sheets(results, tables.rows(results))
    shown = list(dict.fromkeys(str(entry["method"]) for entry in results["models"][:2]))
    assert section is not None
    assert [heading for heading, _ in section.panels] == shown
