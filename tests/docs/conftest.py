"""A folder of the reader's own, with everything that the pages take for granted, and a cache that the pages share."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import expunge as ex

sys.path.insert(0, str(Path(__file__).parent))

MY_PROJECT = {
    "models.py": "import torch\n\n\ndef make():\n    return torch.nn.Sequential(torch.nn.Flatten(), "
    "torch.nn.Linear(64, 10))\n",
    "data.py": "import expunge as ex\n\n\ndef load():\n    return ex.data.load('digits', limit=200)\n",
    "training.py": "def train(dataset, ids, seed):\n    raise NotImplementedError\n",
    "__init__.py": "",
}


@pytest.fixture(autouse=True)
def _own_cache(shared_cache: None, own_place: None) -> None:
    """Instead of a cache for each test."""


@pytest.fixture
def readers_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a reader has who types the commands and YAML files of the pages: data, ids, weights, own code."""
    x = np.zeros((40, 28, 28), dtype=np.uint8)
    y = np.arange(40) % 10
    for name in ("mnist", "fashion_mnist"):
        np.savez(tmp_path / f"{name}.npz", x_train=x, y_train=y, x_test=x + 1, y_test=y)
    monkeypatch.setenv("EXPUNGE_DATA", str(tmp_path))
    train, _ = ex.data.load("digits", limit=200)
    (tmp_path / "ids.csv").write_text("id\n" + "".join(f"{i}\n" for i in train.ids[:5]))
    package = tmp_path / "my_project"
    package.mkdir()
    for name, text in MY_PROJECT.items():
        (package / name).write_text(text)
    for name in [m for m in sys.modules if m.split(".")[0] == "my_project"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    import my_project.models  # written just now

    for name in ("original", "mine"):
        ex.io.save_weights(tmp_path / f"{name}.safetensors", my_project.models.make())
    return tmp_path
