"""The command line in this process, and a small experiment for it."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from expunge.cli import main

# the smallest experiment that has everything in it; it takes a second or two
SMALL: dict[str, Any] = {
    "model": {"name": "mlp", "hidden": [32]},
    "data": {"name": "digits"},
    "request": {"classes": [3]},
    "recipe": {"epochs": 3, "lr": 0.1, "batch_size": 64},
    "methods": [{"name": "finetune", "epochs": 1}, {"name": "random_label", "epochs": 1}],
    "audit": {"seeds": [0, 1], "attacks": ["loss"], "relearn": False},
}


@dataclass(frozen=True)
class Outcome:
    """What a command left: exit code, standard output, standard error."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        return self.out + self.err


class Shell:
    """Runs `expunge ...` as the installed command does, with the real exit codes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capsys = monkeypatch, capsys

    def __call__(self, *words: object) -> Outcome:
        self.monkeypatch.setattr(sys, "argv", ["expunge", *map(str, words)])
        self.capsys.readouterr()
        code: Any = 0
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        out, err = self.capsys.readouterr()
        assert "Traceback" not in out + err
        return Outcome(code, out, err)

    def refuses(self, *words: object) -> str:
        """What a command says that must end with exit code 2; line ends do not count."""
        outcome = self(*words)
        assert outcome.code == 2, outcome.said
        assert not outcome.out, outcome.out
        return outcome.err


def write_yaml(path: Path, config: dict[str, Any], **changes: Any) -> Path:
    """The file of an experiment, with some settings replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({**config, **changes}, sort_keys=False))
    return path


def read_csv(folder: Path) -> list[dict[str, str]]:
    """The rows of results.csv."""
    with open(folder / "results.csv", newline="") as file:
        return list(csv.DictReader(file))


def numbers(folder: Path) -> list[dict[str, str]]:
    """The rows of results.csv without what depends on the clock."""
    timed = ("seconds", "cost_ratio")
    return [{k: v for k, v in row.items() if k not in timed} for row in read_csv(folder)]


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())
