"""Real digits and small models trained on them, for every test."""

from __future__ import annotations

import copy
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import expunge as ex
from expunge.data import Rows

sys.path.insert(0, str(Path(__file__).parent))

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads what another one, or the user, has kept."""
    monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the kept models of tests that may share them."""
    return tmp_path_factory.mktemp("shared-cache")


@pytest.fixture
def shared_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Models that another test has trained are found again."""
    monkeypatch.setenv("EXPUNGE_CACHE", str(cache))


@pytest.fixture
def own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working folder of the test's own, and no data but what is built in."""
    monkeypatch.delenv("EXPUNGE_DATA", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def digits_pair() -> tuple[Rows, Rows]:
    """scikit-learn's handwritten digits, 1,438 training and 359 test rows of 1x8x8."""
    return ex.data.load("digits")


@pytest.fixture(scope="session")
def train(digits_pair: tuple[Rows, Rows]) -> Rows:
    return digits_pair[0]


@pytest.fixture(scope="session")
def test(digits_pair: tuple[Rows, Rows]) -> Rows:
    return digits_pair[1]


@pytest.fixture(scope="session")
def mlp_recipe() -> ex.Recipe:
    return ex.Recipe(model={"name": "mlp", "hidden": [32]}, epochs=5, lr=0.1, batch_size=64)


@pytest.fixture(scope="session")
def net_recipe() -> ex.Recipe:
    """A convolutional network with batch norm."""
    spec = {"name": "convnet", "width": 16, "depth": 2, "norm": "batch"}
    return ex.Recipe(model=spec, epochs=5, lr=0.1, batch_size=64)


@pytest.fixture(scope="session")
def _trained(
    train: Rows, mlp_recipe: ex.Recipe, net_recipe: ex.Recipe, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, nn.Module]:
    """The models, with ledgers of their trainings, which they remember."""
    folder = tmp_path_factory.mktemp("ledgers")
    recipes = {"mlp": mlp_recipe, "net": net_recipe}
    return {n: replace(r, ledger={"keep": 1.0})(train, ledger=folder / n) for n, r in recipes.items()}


@pytest.fixture
def mlp(_trained: dict[str, nn.Module]) -> nn.Module:
    """A trained multi-layer perceptron, a copy of one's own."""
    return copy.deepcopy(_trained["mlp"])


@pytest.fixture
def net(_trained: dict[str, nn.Module]) -> nn.Module:
    """A trained convolutional network with batch norm, a copy of one's own."""
    return copy.deepcopy(_trained["net"])


@pytest.fixture
def three(train: Rows) -> ex.Request:
    """All threes must go."""
    return ex.Request(train, classes=[3])
