"""How gates explain a class, from the gates to the audit's results."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import expunge as ex
from expunge import explain
from expunge.artifact.gates import Gated, choose, explained
from expunge.io import model_digest

QUICK: dict[str, Any] = {"per_class": 30, "epochs": 1, "batch_size": 64, "draws": 1}


def gated(model: nn.Module, rows: ex.Rows) -> Gated:
    layers, _ = choose(model.eval(), rows.x(torch.tensor([0, 1])), rows.num_classes)
    made = Gated(model, layers, [(c,) for c in range(rows.num_classes)])
    with torch.no_grad():
        made.free.copy_(torch.randn(made.free.shape, generator=torch.Generator().manual_seed(0)))
    return made


def test_scores_are_those_of_compare_on_unseen_images_of_the_class(net, test):
    made, before = gated(net, test), model_digest(net)
    told = explained(made, test, [3])
    assert [row["explainer"] for row in told["scores"]] == [
        *("gates", "grad_cam", "integrated_gradients", "chance", "chance, coarse")
    ]
    threes = (test.y == 3).nonzero().flatten()
    assert all(row["images"] == min(40, len(threes)) for row in told["scores"])
    x, y = test.x(threes), test.y[threes]
    assert len(x) < 40  # so that all of them are explained
    ways = {"gates": explain.gate_maps(made.closed(10)), "grad_cam": explain.grad_cam}
    assert told["scores"][:2] == explain.compare(net, x, y, ways, steps=12)
    assert len(told["pictures"]) == 4
    assert list(told["pictures"][0]["maps"]) == [row["explainer"] for row in told["scores"]]
    assert model_digest(net) == before


def test_a_model_without_places_says_so_and_the_others_are_drawn(mlp, test):
    told = explained(gated(mlp, test), test, [3])
    assert "tells places" in told["scores"][0]["failed"]
    assert list(told["pictures"][0]["maps"]) == ["integrated_gradients", "chance", "chance, coarse"]


def test_there_is_nothing_to_tell_without_images_of_the_class(mlp, test):
    made = gated(mlp, test)
    assert explained(made, test.take((test.y != 3).nonzero().flatten()), [3]) == {}
    words = ex.Rows(torch.zeros(4, 5, dtype=torch.long), torch.tensor([3, 3, 1, 1]), classes=test.classes, name="words")
    assert explained(made, words, [3]) == {}


@pytest.fixture
def audited(mlp, mlp_recipe, train, test) -> dict[str, Any]:
    result = ex.unlearn(mlp, ex.Request(train, classes=[3]), "weight_filter", **QUICK)
    some = {"seeds": 2, "attacks": ["loss"], "relearn": False, "examples": 0}
    report = ex.audit(
        {"original": mlp, "weight_filter": result}, result.request, unseen=test, recipe=mlp_recipe, **some
    )
    return {entry["method"]: entry for entry in report.results["models"]}


def test_an_audit_of_a_result_has_it_beside_the_map_of_the_gates(audited):
    told = audited["weight_filter"]["facts"]
    assert len(told["gates"]["closed"]) == 10
    assert told["explained"]["scores"][0]["explainer"] == "gates"
    assert audited["original"]["facts"] == {}
    assert "value" in audited["weight_filter"]["measurements"]["activation_distance"]
    assert audited["retrain"]["measurements"]["activation_distance"]["value"] == 0
