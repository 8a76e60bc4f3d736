from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from typing import Any

import numpy as np
import pytest
from sample import sample
from sklearn.metrics import roc_curve

from expunge.report import gallery, tables
from expunge.report.figures import attack, canvas, labels
from expunge.report.figures.by_class import most_changed
from expunge.report.figures.heat import heat, log_tint
from expunge.report.gallery import classes, outcome


def texts(svg: str) -> list[str]:
    return ["".join(node.itertext()).strip() for node in ET.fromstring(svg).iter() if node.tag.endswith("text")]


def xml(svg: str) -> str:
    return svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)


def test_names_stay_text_whatever_they_are() -> None:
    names = ["$x^2$ costs $5", "<b>&amp;</b>", "日本語", "a\nb"]
    written = texts(xml(heat("n", "about", names, ["one"], [[0.1], [0.2], [0.3], [0.4]])))
    assert set(written) >= {"$x^2$ costs $5", "<b>&amp;</b>", "日本語", "a b", "10", "20", "30", "40"}


def test_a_figure_is_the_same_whatever_the_users_settings() -> None:
    import matplotlib

    plain = heat("n", "about", ["a"], ["b"], [[0.5]])
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.fonttype": "path"}):
        assert heat("n", "about", ["a"], ["b"], [[0.5]]) == plain


def test_ids_carry_the_name_of_the_figure() -> None:
    svg = heat("mine", "about", ["a"], ["b"], [[0.5]])
    assert all(found.startswith("mine-") for found in re.findall(r' id="([^"]+)"', svg))
    assert 'aria-label="about"' in svg


def test_cells_grow_darker_with_their_value() -> None:
    svg = heat("n", "about", ["a"], ["b", "c", "d"], [[0.0, 0.5, 1.0]])
    shades = [float(found) for found in re.findall(r"fill: var\(--heat\); opacity: ([\d.]+)", svg)]
    assert len(shades) == 3
    assert shades == sorted(shades)
    assert shades[0] < shades[2]


def test_logarithmic_tint() -> None:
    tint = log_tint([[0.0, 1e-4, 1e-2, 1.0, None]])[0]
    assert tint == [0.0, 0.0, pytest.approx(0.5), pytest.approx(1.0), None]


@pytest.mark.parametrize("shift", [0.0, 0.8, -0.5])
def test_mean_curve_against_scikit_learn(shift: float) -> None:
    rng = np.random.default_rng(0)
    curves, expected = [], []
    for _ in range(3):
        score = np.r_[rng.normal(shift, 1, 300), rng.normal(0, 1, 400)]
        fpr, tpr, _ = roc_curve(np.r_[np.ones(300), np.zeros(400)], score, drop_intermediate=False)
        curves.append({"fpr": fpr.tolist(), "tpr": tpr.tolist()})
        expected.append([tpr[fpr <= at + 1e-12].max() for at in attack.GRID])
    found = attack.mean_curve(curves)
    assert found is not None
    np.testing.assert_allclose(found, np.mean(expected, axis=0), atol=0.01)
    assert found[-1] == 1.0


def test_curve_without_points() -> None:
    assert attack.mean_curve([{"fpr": [], "tpr": []}, {"fpr": [0, 1], "tpr": [0]}]) is None


def test_strongest_attack_is_the_farthest_from_chance() -> None:
    curves = {"weak": attack.GRID**0.8, "inverted": attack.GRID**4}
    assert attack.strongest(curves) is curves["inverted"]
    assert attack.strongest({}) is None


def test_forgotten_classes_are_always_shown() -> None:
    before = [90.0] * 50
    after = [90.0] * 50
    after[7], after[40] = 10.0, 80.0
    assert most_changed(before, [after], {3}, at_most=3) == [3, 7, 40]


def test_names_do_not_cover_each_other() -> None:
    rng = np.random.default_rng(1)
    points = [(float(x), float(y)) for x, y in rng.uniform(150, 250, (12, 2))]
    names = [f"method_{i}" for i in range(12)]
    corners = labels.place(points, names, 10, (0, 0, 500, 400))
    boxes = [(x, y, x + labels.text_width(name, 10), y + 11.5) for (x, y), name in zip(corners, names)]
    shared = [labels._shared(a, b) for i, a in enumerate(boxes) for b in boxes[:i]]
    assert max(shared) == 0


def region(results: dict[str, Any]) -> gallery.Section | None:
    return outcome.scatter(results, tables.rows(results))


def test_scatter_draws_the_region_of_retraining() -> None:
    section = region(sample(methods=4, seeds=2))
    assert section is not None
    assert [heading for heading, _ in section.panels] == ["All methods", "Close to retraining"]
    assert all("stroke-dasharray: 4.8,3.6" in svg for _, svg in section.panels)
    assert "salun" in texts(xml(section.panels[1][1]))
    assert "finetune" not in texts(xml(section.panels[1][1]))


def test_scatter_without_retraining_has_no_region() -> None:
    section = region(sample(methods=2, seeds=1, retrain=False))
    assert section is not None
    assert len(section.panels) == 1
    assert "stroke-dasharray" not in section.panels[0][1]


def test_many_methods_share_one_matrix_of_classes() -> None:
    results = sample(methods=8, seeds=1, classes=[f"class {i}" for i in range(60)])
    matrix = classes.accuracy(results, tables.rows(results))
    assert matrix is not None
    assert matrix.kind == "wide"
    assert "Shown: the 24 of 60 classes that changed most." in matrix.caption
    assert "class 3" in texts(xml(matrix.panels[0][1]))


def test_colours_are_the_pages_own() -> None:
    with canvas.drawing():
        figure, ax = canvas.axes(100, 80, (10, 10, 10, 10))
        for variable in canvas.VARIABLES:
            ax.plot([0, 1], [0, 1], color=canvas.color(variable))
        svg = canvas.svg(figure, "n", "about")
    assert set(re.findall(r"stroke: var\(--([\w-]+)\)", svg)) == set(canvas.VARIABLES)
