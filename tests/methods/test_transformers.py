"""Vision models of `transformers`, built from a configuration: forgetting a class without a line of their code."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import expunge as ex
from expunge import Request, Rows
from expunge.io import model_digest

transformers = pytest.importorskip("transformers", reason="the models of transformers need it installed")

CLASSES = 5
# transformers draws weights too small for networks of this size to learn fast
SHAPE = {"image_size": 8, "patch_size": 2, "num_channels": 1, "num_labels": CLASSES, "initializer_range": 0.15}
FIELDS: dict[str, dict[str, Any]] = {
    "weight_filter": {"per_class": 60, "epochs": 8, "lr": 0.3, "batch_size": 64, "draws": 1, "retain": 1.0},
    "unsir": {"lr": 0.01, "repair_lr": 0.005, "images": 32},
    "svd_forget": {},
}


def vit(rows: Rows) -> nn.Module:
    size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    return transformers.ViTForImageClassification(transformers.ViTConfig(**size, **SHAPE))


def swin(rows: Rows) -> nn.Module:
    size = {"embed_dim": 16, "depths": [2, 1], "num_heads": [2, 4], "window_size": 2}
    return transformers.SwinForImageClassification(transformers.SwinConfig(**size, **SHAPE))


def few(rows: Rows) -> Rows:
    """The first digits only."""
    index = (rows.y < CLASSES).nonzero().flatten()
    return Rows(rows.x(index), rows.y[index], classes=rows.classes[:CLASSES], name="few digits")


@pytest.fixture(scope="module")
def rows(train: Rows, test: Rows) -> tuple[Rows, Rows]:
    return few(train), few(test)


@pytest.fixture(scope="module", params=[vit, swin], ids=["vit", "swin"])
def trained(request: pytest.FixtureRequest, rows: tuple[Rows, Rows]) -> nn.Module:
    """It is not changed by any test."""
    return ex.Recipe(model=request.param, epochs=6, lr=5e-3, batch_size=32, optimizer="adamw")(rows[0])


def right(model: nn.Module, rows: Rows, side: Tensor) -> float:
    with torch.no_grad():
        answers = model(rows.x(torch.arange(len(rows)))).logits.argmax(1)
    return float((answers == rows.y)[side].float().mean())


@pytest.mark.parametrize("name", FIELDS)
def test_a_class_is_forgotten_and_the_others_are_kept(name: str, trained: nn.Module, rows: tuple[Rows, Rows]) -> None:
    train, test = rows
    before = model_digest(trained)
    gone = test.y == 3
    whole = right(trained.eval(), test, ~gone)
    assert whole > 0.93
    result = ex.unlearn(trained, Request(train, classes=[3]), name, **FIELDS[name])
    model = result.model.eval()
    assert type(model) is type(trained)
    assert right(model, test, gone) <= 0.15
    assert right(model, test, ~gone) > whole - 0.15
    assert model_digest(trained) == before
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in [*trained.modules(), *model.modules()])
