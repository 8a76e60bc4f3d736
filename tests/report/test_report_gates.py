"""What gates and a search over scales tell on the page: there with their data, not without, not undone by damage."""

from __future__ import annotations

import copy
import re
import xml.etree.ElementTree as ET
from typing import Any

import numpy as np
import pytest
from sample import png, sample, save

from expunge import report
from expunge.report import gallery
from expunge.report.figures.frontier import frontier
from expunge.report.gallery import gates
from expunge.report.gallery.frontier import pairs

PICTURE = png(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4)
MAKERS = (gates.closed, gates.most, gates.places, gates.scores, pairs)
LAYERS = ("features.0.weight", "attention.in_proj_weight[q]", "a_long_name_of_a_block.attention.qkv.weight")


def facts(seed: int) -> dict[str, Any]:
    """What a weight filter tells of ten classes and three layers."""
    rng = np.random.default_rng(seed)
    return {
        "gates": {
            "classes": [str(c) for c in range(10)],
            "left": [0.0] * 10,
            "layers": [{"name": name, "units": 8} for name in LAYERS],
            "closed": rng.uniform(0, 0.4, (10, 3)).round(4).tolist(),
            "most": [[[f"{LAYERS[2]}:{u}", 0.99 - u / 100] for u in range(4)] for _ in range(10)],
        },
        "explained": {
            "scores": [
                {"explainer": "gates", "images": 40, "insertion": 0.7 + 0.1 * seed, "deletion": 0.25},
                {"explainer": "grad_cam", "images": 40, "insertion": 0.6, "deletion": 0.35},
                {"explainer": "cam", "images": 40, "failed": "no average"},
            ],
            "pictures": [{"image": PICTURE, "maps": {"chance": PICTURE, "gates": PICTURE}} for _ in range(2)],
        },
    }


def searched() -> dict[str, Any]:
    frontier = [
        {"scale_retain": r, "scale_forget": f, "forget": 40.0 / f, "retain": 99.0 - 10 * f / r}
        for r in (10.0, 100.0)
        for f in (1.0, 3.0, 10.0)
    ]
    chosen = {"scale_retain": 100.0, "scale_forget": 3.0}
    return {"frontier": frontier, "chosen": chosen, "before": {"forget": 98.0, "retain": 97.0}}


@pytest.fixture(scope="module")
def audited() -> dict[str, Any]:
    found = sample(methods=2, seeds=2)
    found["question"] |= {"classes": [str(c) for c in range(10)], "forgotten": [3]}
    for entry in found["models"]:
        entry["facts"] = {"finetune": facts(entry["seed"]), "salun": searched()}.get(entry["method"], {})
    return found


@pytest.fixture
def results(audited: dict[str, Any]) -> dict[str, Any]:
    return copy.deepcopy(audited)


def first(section: gallery.Section | None) -> str:
    assert section is not None
    return section.panels[0][1]


def xml(svg: str) -> ET.Element:
    return ET.fromstring(svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))


def texts(svg: str) -> list[str]:
    return ["".join(node.itertext()).strip() for node in xml(svg).iter() if node.tag.endswith("text")]


def test_the_map_is_the_mean_of_the_seeds_by_layer_and_class(results: dict[str, Any]) -> None:
    svg = first(gates.closed(results, []))
    written = texts(svg)
    assert written[:3] == ["features.0", "…tention.in_proj_weight[q]", "…_of_a_block.attention.qkv"]
    assert [w for w in written if w.endswith(", forgotten")] == ["3, forgotten"]
    means = np.mean([facts(seed)["gates"]["closed"] for seed in (0, 1)], axis=0).T
    assert written[-30:] == [f"{100 * v:.0f}" for v in means.flatten()]
    shades = [float(found) for found in re.findall(r"fill: var\(--heat\); opacity: ([\d.]+)", svg)]
    np.testing.assert_allclose(shades, 0.04 + 0.48 * means.flatten() / means.max(), atol=2e-3)


def test_seeds_of_another_shape_are_left_out(results: dict[str, Any]) -> None:
    alone = copy.deepcopy(results)
    alone["models"] = [e for e in alone["models"] if e["seed"] == 0]
    for entry in results["models"]:
        if entry["method"] == "finetune" and entry["seed"] == 1:
            entry["facts"]["gates"]["layers"] = entry["facts"]["gates"]["layers"][:2]
    assert first(gates.closed(results, [])) == first(gates.closed(alone, []))


def test_many_layers_and_classes_are_cut_and_the_caption_says_so(results: dict[str, Any]) -> None:
    for entry in results["models"]:
        if entry["method"] == "finetune":
            told = entry["facts"]["gates"]
            told["classes"] = [str(c) for c in range(30)]
            told["layers"] = [{"name": f"blocks.{i}.fc.weight", "units": 3} for i in range(60)]
            told["closed"] = [[i * c / 3000 for i in range(60)] for c in range(30)]
    section = gates.closed(results, [])
    written = texts(first(section))
    assert section is not None
    assert "Shown: the layers that differ most" in section.caption
    assert "blocks.59.fc" in written
    assert "blocks.1.fc" not in written
    assert len([w for w in written if w.startswith("blocks.")]) == gates.MOST_ROWS


def test_units_are_told_by_the_end_of_their_names(results: dict[str, Any]) -> None:
    results["question"]["forgotten"] = [3, 5]
    section = gates.most(results, [])
    assert section is not None
    assert [heading for heading, _ in section.panels] == ["finetune: class 3", "finetune: class 5"]
    written = texts(first(section))
    assert written[:4] == [f"…block.attention.qkv:{u}" for u in range(4)]
    assert {"0.99", "0.96"} <= set(written)


def test_maps_and_scores_stand_beside_each_other(results: dict[str, Any]) -> None:
    assert texts(first(gates.places(results, []))) == ["input", "gates", "chance", "image 1", "image 2"]
    section = gates.scores(results, [])
    written = texts(first(section))
    assert section is not None
    assert "40 unseen images of the class, finetune" in section.caption
    assert [w for w in written if re.fullmatch(r"0\.\d+|failed", w)] == [
        *("0.750", "0.250"),  # insertion of two seeds: 0.7 and 0.8
        *("0.600", "0.350"),
        *("failed", "failed"),
    ]


def test_a_frontier_is_drawn_where_it_belongs(results: dict[str, Any]) -> None:
    section = pairs(results, [])
    assert section is not None
    assert [heading for heading, _ in section.panels] == ["salun"]
    svg = first(section)
    assert "100, 3" in texts(svg)
    paths = [n for n in xml(svg).iter() if n.tag.endswith("path") and "stroke-width: 0.8" in str(n.attrib)]
    found = []
    for path in paths:
        numbers = [float(v) for v in re.findall(r"-?[\d.]+", path.get("d", ""))]
        found.append(list(zip(numbers[::2], numbers[1::2])))
    points = np.array([(t["forget"], t["retain"]) for t in searched()["frontier"]])
    drawn = np.array([spot for line in found if len(line) == 3 for spot in line])
    for axis, sign in ((0, 1), (1, -1)):  # both axes are linear, y downwards
        line = np.polyfit(points[:, axis], drawn[:, axis], 1)
        np.testing.assert_allclose(drawn[:, axis], np.polyval(line, points[:, axis]), atol=0.01)
        assert line[0] * sign > 0


def test_a_frontier_without_choice_or_start(results: dict[str, Any]) -> None:
    svg = frontier("f", "about", [[(0.0, 100.0)]], None, None, "")
    assert "others, % right" in texts(svg)
    for entry in results["models"]:
        entry["facts"].pop("chosen", None)
        entry["facts"].pop("before", None)
    assert "100, 3" not in texts(first(pairs(results, [])))
    for entry in results["models"]:
        entry["facts"]["frontier"] = []
    assert pairs(results, []) is None


def test_ids_differ_and_colours_are_the_pages(results: dict[str, Any]) -> None:
    svgs = [svg for make in MAKERS if (section := make(results, [])) for _, svg in section.panels]
    assert len(svgs) >= 5
    ids = [found for svg in svgs for found in re.findall(r' id="([^"]+)"', svg)]
    assert len(ids) == len(set(ids))
    assert not [svg for svg in svgs if re.search(r"#[0-9a-f]{6}\b", svg)]


def test_without_facts_there_is_none(results: dict[str, Any]) -> None:
    for entry in results["models"]:
        entry.pop("facts")
    assert [make(results, []) for make in MAKERS] == [None] * len(MAKERS)


WRONG = [None, "text", 3, float("nan"), [], {}, ["text", None], [[None], ["a", "b"]], {"a": [1]}]


@pytest.mark.parametrize("wrong", WRONG, ids=repr)
@pytest.mark.parametrize("part", ["gates", "explained", "frontier", "chosen", "before"])
def test_damaged_facts_are_left_out(results: dict[str, Any], part: str, wrong: Any) -> None:
    for entry in results["models"]:
        entry["facts"] = {part: wrong}
    assert [make(results, []) for make in MAKERS] == [None] * len(MAKERS)


@pytest.mark.parametrize("wrong", WRONG, ids=repr)
@pytest.mark.parametrize(
    ("make", "part", "inner"),
    [
        *((gates.closed, "gates", inner) for inner in ("classes", "layers", "closed")),
        *((gates.most, "gates", inner) for inner in ("classes", "most")),
        (gates.places, "explained", "pictures"),
        (gates.scores, "explained", "scores"),
    ],
)
def test_damage_inside_them_stops_no_page(
    results: dict[str, Any], make: Any, part: str, inner: str, wrong: Any
) -> None:
    for entry in results["models"]:
        if part in entry["facts"]:
            entry["facts"][part][inner] = wrong
    section = make(results, [])
    if inner in ("closed", "most", "pictures", "scores"):
        assert section is None


def test_the_page_holds_all_of_it(tmp_path: Any, results: dict[str, Any]) -> None:
    page = report.draw(save(tmp_path, results)).read_text(encoding="utf-8")
    for title in (
        *("Which layers each class needs", "What is closed most", "Where the gates look", "Is the map right?"),
        "What forgetting costs",
    ):
        assert f"<h2>{title}</h2>" in page
