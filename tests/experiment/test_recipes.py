"""Every recipe that comes with the project can be run; on stand-ins of its data, as nobody has all of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from expunge import models
from expunge.experiment import from_dict

FOLDER = Path(__file__).parents[2] / "recipes"
RECIPES = sorted(FOLDER.glob("*.yaml"))
# side and channels, classes
SHAPES = {
    "mnist": ((28, 28), 10),
    "fashion_mnist": ((28, 28), 10),
    "cifar10": ((32, 32, 3), 10),
    "svhn": ((32, 32, 3), 10),
    "pneumoniamnist": ((28, 28), 2),
    "organamnist": ((28, 28), 11),
}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_sound(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = yaml.safe_load(path.read_text())
    if config["model"]["name"] in models.names("diffusion"):
        pytest.importorskip("diffusers")
    name = config["data"]["name"]
    shape, classes = SHAPES[name]
    rng = np.random.default_rng(0)
    y = np.arange(600) % classes
    x = rng.integers(0, 256, (660, *shape), dtype=np.uint8)
    np.savez(tmp_path / f"{name}.npz", x_train=x[:600], y_train=y, x_test=x[600:], y_test=y[:60])
    monkeypatch.setenv("EXPUNGE_DATA", str(tmp_path))
    config["data"].pop("limit", None)
    if "class_limit" in config["data"]:  # as small a part of the stand-ins as of the data
        config["data"]["class_limit"] = dict.fromkeys(config["data"]["class_limit"], 2)
    experiment = from_dict(config)
    assert experiment.out == Path("runs") / path.stem
    assert f"recipes/{path.name} " in path.read_text()
    assert f"{name}.npz" in path.read_text()
    for row in ("amnesiac", "partial_amnesiac") if path.stem.startswith("amnesiac") else ():
        assert row in experiment.methods


def test_there_are_recipes() -> None:
    assert len(RECIPES) >= 8
