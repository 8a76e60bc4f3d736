"""What a ledger tells on the page: there with its data, not without, and not undone by damage."""

from __future__ import annotations

import copy
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sample import png, sample, save

from expunge import report
from expunge.report import gallery, tables
from expunge.report.figures.lines import lines
from expunge.report.gallery import ledger

SECTIONS: dict[str, Callable[..., gallery.Section | None]] = {
    "Along training and unlearning": ledger.along,
    "How many steps a model can lose": ledger.affected,
    "Is it the right steps?": ledger.control,
    "Where the model looks for the class": ledger.attention,
}
PICTURE = png(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4)


def told() -> dict[str, Any]:
    """What `results["ledger"]` might hold."""
    curve = [{"share": s, "targeted": 100 - 90 * s, "retained": 98.0} for s in (0.0, 0.5, 1.0)]
    return {
        "keep": 1.0,
        "record": "update",
        "steps": 1540,
        "touched": 120,
        "bytes": 4323394,
        "rows": "unseen rows of the targeted classes",
        "training": [{"step": s, "targeted": s / 10, "retained": s / 20} for s in (0, 500, 1000)],
        "unlearning": {"amnesiac": curve, "partial <0.1>": curve},
        "affected": {"amnesiac": curve[:2]},
        "maps": [{"image": PICTURE, "maps": {"original": PICTURE, "amnesiac": PICTURE}} for _ in range(2)],
    }


@pytest.fixture(scope="module")
def audited() -> dict[str, Any]:
    """Two seeds; two rows that subtract, each with its control."""
    found = sample(methods=2, seeds=2)
    found["ledger"] = told()
    values = {"finetune": (100.0, 34.6), "salun": (99.5, 70.0)}
    for entry in found["models"]:
        if entry["method"] in values:
            before, after = values[entry["method"]]
            seed = entry["seed"]
            entry["facts"] = {
                "control": {
                    "steps": 120,
                    "before": {"forget": before, "retain": 99.0},
                    "after": {"forget": after + seed, "retain": 92.0},
                    "control": {"forget": 95.0, "retain": 91.0},
                }
            }
    return found


@pytest.fixture
def results(audited: dict[str, Any]) -> dict[str, Any]:
    return copy.deepcopy(audited)


@pytest.fixture(scope="module")
def whole(audited: dict[str, Any]) -> dict[str, gallery.Section]:
    return made(audited)


def made(results: dict[str, Any]) -> dict[str, gallery.Section]:
    rows = tables.rows(results)
    return {title: section for title, make in SECTIONS.items() if (section := make(results, rows))}


def caption(section: gallery.Section | None) -> str:
    assert section is not None
    return section.caption


def first(section: gallery.Section | None) -> str:
    """The drawing in its first panel."""
    assert section is not None
    return section.panels[0][1]


def xml(svg: str) -> ET.Element:
    return ET.fromstring(svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))


def texts(svg: str) -> list[str]:
    return ["".join(node.itertext()).strip() for node in xml(svg).iter() if node.tag.endswith("text")]


def drawn(svg: str, variable: str) -> list[tuple[float, float]]:
    """The corners of the curve in one of the page's colours, in the drawing's units."""
    paths = [node for node in xml(svg).iter() if node.tag.endswith("path") and "stroke-width: 1.6" in str(node.attrib)]
    (path,) = [p for p in paths if f"stroke: var(--{variable})" in p.get("style", "")]
    numbers = [float(found) for found in re.findall(r"-?[\d.]+", path.get("d", ""))]
    return list(zip(numbers[::2], numbers[1::2]))


# -- one panel -------------------------------------------------------------------------------------------------


def test_points_are_drawn_where_they_belong() -> None:
    """Both axes are linear: the frame's corners are known from the grid lines."""
    curves = {"targeted": [(0.0, 100.0), (0.1, 60.0), (0.4, 0.0)], "retained": [(0.0, 90.0), (0.2, 50.0), (0.4, 10.0)]}
    svg = lines("mine", "about", "% of all steps", curves, percent=True)
    forget, retain = drawn(svg, "forget"), drawn(svg, "retain")
    (left, top), (_, _), (right, bottom) = forget
    for found, part in ((forget, "targeted"), (retain, "retained")):
        for (x, y), (share, percent) in zip(found, curves[part]):
            assert x == pytest.approx(left + (right - left) * share / 0.4, abs=0.01)
            assert y == pytest.approx(bottom + (top - bottom) * percent / 100, abs=0.01)
    assert right > left
    assert bottom > top  # downwards
    spots = [(float(n.get("x", 0)), float(n.get("y", 0))) for n in xml(svg).iter() if n.tag.endswith("use")]
    assert [spot for spot in spots if spot in [*forget, *retain]] == [*forget, *retain]  # a marker on every point


def test_the_axis_says_percent_or_steps() -> None:
    curves = {"targeted": [(0.0, 100.0), (0.4, 0.0)]}
    assert {"0", "10", "20", "30", "40", "50", "100", "% of all steps", "% right"} == set(
        texts(lines("a", "about", "% of all steps", curves, percent=True))
    )
    assert {"0", "200", "400", "50", "100", "step", "% right"} == set(
        texts(lines("a", "about", "step", {"retained": [(0.0, 10.0), (540.0, 98.0)]}))
    )


@pytest.mark.parametrize("curves", [{}, {"targeted": []}, {"targeted": [(0.0, 50.0)]}])
def test_a_panel_of_little_or_nothing(curves: dict[str, Any]) -> None:
    assert "50" in texts(lines("a", "about", "step", curves))


def test_ids_begin_with_the_name_and_what_it_shows_is_said() -> None:
    svg = lines("mine", 'a "b" <c>', "step", {"targeted": [(0, 0), (1, 50)], "retained": [(0, 0), (1, 50)]})
    ids = re.findall(r' id="([^"]+)"', svg)
    assert ids
    assert all(found.startswith("mine-") for found in ids)
    assert set(re.findall(r'href="#([^"]+)"', svg)) <= set(ids)
    assert xml(svg).get("aria-label") == 'a "b" <c>'


# -- the sections ----------------------------------------------------------------------------------------------


def test_each_section_is_there_with_its_data(whole: dict[str, gallery.Section]) -> None:
    assert list(whole) == list(SECTIONS)
    assert all(section.title == title for title, section in whole.items())
    along, affected, control, attention = whole.values()
    assert [heading for heading, _ in along.panels] == ["Training", "amnesiac", "partial <0.1>"]
    assert "unseen rows of the targeted classes" in along.caption
    assert [heading for heading, _ in affected.panels] == ["amnesiac"]
    assert "120 of 1,540 steps (7.8 %)" in affected.caption
    assert along.legend == affected.legend
    assert [meaning for _, meaning in along.legend] == ["targeted", "retained"]
    assert control.kind == "half"
    assert texts(attention.panels[0][1]) == ["input", "original", "amnesiac", "image 1", "image 2"]


def test_the_control_is_in_percent_and_the_mean_of_the_seeds(whole: dict[str, gallery.Section]) -> None:
    written = texts(whole["Is it the right steps?"].panels[0][1])
    assert {"finetune", "salun", "forgotten, after", "retained, control"} <= set(written)
    numbers = [text for text in written if re.fullmatch(r"[\d.]+", text)]
    expected = [[100.0, 35.1, 95.0, 99.0, 92.0, 91.0], [99.5, 70.5, 95.0, 99.0, 92.0, 91.0]]
    assert numbers == [f"{value:.1f}" for row in expected for value in row]


def test_darker_is_more(whole: dict[str, gallery.Section]) -> None:
    svg = whole["Is it the right steps?"].panels[0][1]
    shades = [float(found) for found in re.findall(r"fill: var\(--heat\); opacity: ([\d.]+)", svg)]
    assert len(shades) == 12
    assert shades[1] < shades[7] < shades[6] < shades[0]  # 35.1, 70.5, 99.5 and 100 percent


def test_colours_and_ids_of_all_figures(whole: dict[str, gallery.Section]) -> None:
    svgs = [svg for section in whole.values() for _, svg in section.panels]
    ids = [found for svg in svgs for found in re.findall(r' id="([^"]+)"', svg)]
    assert len(ids) == len(set(ids))
    assert all(found.startswith("ledger-") for found in ids)
    assert not [svg for svg in svgs if re.search(r"#[0-9a-f]{6}\b", svg)]


def test_without_a_ledger_there_is_none(results: dict[str, Any]) -> None:
    del results["ledger"]
    assert list(made(results)) == ["Is it the right steps?"]  # which the methods told
    for entry in results["models"]:
        entry.pop("facts", None)
    assert made(results) == {}


@pytest.mark.parametrize(
    ("gone", "left"),
    [
        ({"training": []}, ["amnesiac", "partial <0.1>"]),  # a pruned ledger
        ({"unlearning": {}}, ["Training"]),
        ({"training": [], "unlearning": {}}, None),  # one of gradients
    ],
)
def test_curves_that_are_not_there(results: dict[str, Any], gone: dict[str, Any], left: list[str] | None) -> None:
    results["ledger"].update(gone)
    along = ledger.along(results, [])
    assert (None if along is None else [heading for heading, _ in along.panels]) == left


def test_samples_have_no_maps(results: dict[str, Any]) -> None:
    results["ledger"] |= {"maps": [], "rows": "the targeted rows themselves"}
    assert ledger.attention(results, []) is None
    assert "the targeted rows themselves" in caption(ledger.along(results, []))


# -- damage ----------------------------------------------------------------------------------------------------

WRONG = [None, "text", 3, True, float("nan"), [], {}, ["text", None, 3], {"amnesiac": "text", "b": None, "c": [None]}]


@pytest.mark.parametrize("wrong", WRONG, ids=repr)
def test_damaged_curves_and_maps_are_left_out(results: dict[str, Any], wrong: Any) -> None:
    results["ledger"] |= {"affected": wrong, "maps": wrong, "unlearning": wrong}
    assert ledger.affected(results, []) is None
    assert ledger.attention(results, []) is None
    along = ledger.along(results, [])
    assert along is not None
    assert [heading for heading, _ in along.panels] == ["Training"]
    results["ledger"] |= {"training": wrong}
    assert ledger.along(results, []) is None
    results["ledger"] = wrong
    assert [make(results, []) for make in (ledger.along, ledger.affected, ledger.attention)] == [None] * 3


@pytest.mark.parametrize("wrong", [None, "text", ["text"], {"a": "text"}], ids=repr)
@pytest.mark.parametrize(("depth", "cells"), [(0, 6), (1, 6), (2, 10), (3, 11)])
def test_damaged_controls_are_left_out(results: dict[str, Any], wrong: Any, depth: int, cells: int) -> None:
    """Of two rows with six cells each: a whole row, both numbers of one model, or one number."""
    path = ["facts", "control", "after", "forget"][: depth + 1]
    for place in [entry for entry in results["models"] if entry["method"] == "finetune"]:
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = wrong
    svg = first(ledger.control(results, []))
    assert len(re.findall(r"fill: var\(--heat\)", svg)) == cells
    assert ("finetune" in texts(svg)) == (depth > 1)
    assert "salun" in texts(svg)


def test_a_control_of_fewer_steps_is_told(results: dict[str, Any]) -> None:
    assert "Too few" not in caption(ledger.control(results, []))
    for count, told in ((120, False), (121, True), (None, False)):
        next(e for e in results["models"] if e["method"] == "salun")["facts"]["control"]["of"] = count
        assert ("Too few others were left for salun: its control" in caption(ledger.control(results, []))) == told


def test_a_seed_without_a_number_does_not_count(results: dict[str, Any]) -> None:
    next(e for e in results["models"] if e["method"] == "salun")["facts"]["control"]["after"]["forget"] = None
    assert "71.0" in texts(first(ledger.control(results, [])))


def test_damaged_points_are_left_out_and_order_does_not_matter(
    results: dict[str, Any], whole: dict[str, gallery.Section]
) -> None:
    good = [{"step": s, "targeted": s / 10, "retained": s / 20} for s in (1000, 0, 500)]
    bad: list[Any] = [
        *(None, "text", [], {}, {"step": 100}, {"targeted": 5.0, "retained": 5.0}, {"step": "7", "targeted": 5.0}),
        {"step": None, "targeted": 5.0, "retained": 5.0},
        {"step": float("nan"), "targeted": 5.0, "retained": 5.0},
        {"step": -5, "targeted": 5.0, "retained": 5.0},
        {"step": 700, "targeted": float("inf"), "retained": None},
        {"step": 700, "targeted": 5000.0, "retained": -1.0},  # would be drawn outside
    ]
    results["ledger"]["training"] = [*good[:1], *bad, *good[1:]]
    assert first(ledger.along(results, [])) == first(whole["Along training and unlearning"])


def test_a_point_with_one_part_is_drawn_in_that_one(results: dict[str, Any]) -> None:
    """As where the unseen rows have none of the class."""
    results["ledger"]["training"] = [{"step": s, "retained": s / 20} for s in (0, 500, 1000)]
    svg = first(ledger.along(results, []))
    assert len(drawn(svg, "retain")) == 3
    with pytest.raises(ValueError, match="not enough values"):
        drawn(svg, "forget")


@pytest.mark.parametrize("one", [None, "text", {}, {"maps": "x"}, {"maps": {"original": None}}, {"image": 3}], ids=repr)
def test_damaged_maps(results: dict[str, Any], one: Any) -> None:
    results["ledger"]["maps"].append(one)
    svg = first(ledger.attention(results, []))
    images = [n for n in xml(svg).iter() if n.tag.endswith("image") and "style" in n.attrib]
    assert len(images) == 6  # of two whole ones, the input and a copy below each of two maps
    hostile = "data:text/html;base64,PHNjcmlwdD4="
    results["ledger"]["maps"] = [{"image": hostile, "maps": {"original": hostile}}]
    svg = first(ledger.attention(results, []))
    assert hostile not in svg
    assert texts(svg).count("–") == 2


def test_steps_that_are_not_known_are_not_told(results: dict[str, Any]) -> None:
    for key, wrong in (("steps", 0), ("steps", None), ("touched", "many")):
        broken = copy.deepcopy(results)
        broken["ledger"][key] = wrong
        assert "touches" not in caption(ledger.affected(broken, []))


# -- the page --------------------------------------------------------------------------------------------------


def test_the_page_shows_all_of_it(results: dict[str, Any], tmp_path: Path) -> None:
    text = report.draw(save(tmp_path, results)).read_text(encoding="utf-8")
    for title in SECTIONS:
        assert f"<h2>{title}</h2>" in text
    assert "partial &lt;0.1&gt;" in text
    assert "partial <0.1>" not in text
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert text.count('class="swatch line forget"') == 2


def test_a_damaged_file_still_gives_a_page(results: dict[str, Any], tmp_path: Path) -> None:
    results["ledger"] = dict(zip(told(), ["x", None, 3, [], "x", {}, ["x"], {"a": {}}, {"b": 1}, ["x"]]))
    results["models"][0]["facts"] = "lost"
    results["models"][-1]["facts"] = ["lost"]
    text = report.draw(save(tmp_path, json.loads(json.dumps(results)))).read_text(encoding="utf-8")
    assert "<h2>Along training and unlearning</h2>" not in text
    assert "<h2>Is it the right steps?</h2>" in text
