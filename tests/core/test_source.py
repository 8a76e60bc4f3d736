"""The digest of a user's function: it changes with whatever the function's answer may change with, and else never."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import functools
from decimal import Decimal
from fractions import Fraction
from expunge.source import describe_function

P = 0.1
CONFIG = {"width": 8, "act": Fraction}
SEEN = []

def helper(x):
    return x + 1

class Block:
    def __init__(self, p):
        self.drop = Fraction(p)

    def forward(self, x):
        return helper(self.drop * x)

class Net(Block):
    pass

def build(rows):
    SEEN.append(rows)
    return Net(P)

def configured(rows):
    return CONFIG["act"]()

def captured(act):
    return lambda rows: act()

class Maker:
    bias = True

    def __init__(self, width):
        self.width = width
        self.itself = self

    def __call__(self, rows):
        return Net(0.5)

    def method(self, rows):
        return Decimal(self.width + self.bias)

def recursive(rows):
    return recursive(rows) if rows else other(rows)

def other(rows):
    return recursive(None) if rows else Net(P)
"""
TELL = """
made = captured(Fraction), Maker(3), Maker(4).method, functools.partial(captured, Fraction)
for f in (build, configured, *made, recursive):
    print(describe_function(f).rpartition("#")[2])
"""
NAMES = ("build", "configured", "captured", "maker", "method", "partial", "recursive")
USE_NET = {"build", "maker", "method", "recursive"}
EDITS = {
    "nothing": ("", "", set()),
    "a number of the module": ("P = 0.1", "P = 0.9", {"build", "recursive"}),
    "a setting in a mapping": ('"width": 8', '"width": 16', {"configured"}),
    "a class in a mapping": ('"act": Fraction', '"act": Decimal', {"configured"}),
    "a function that a class's method calls": ("x + 1", "x + 2", USE_NET),
    "a class that a class is made from": ("Fraction(p)", "Decimal(p)", USE_NET),
    "a captured class": ("captured(Fraction)", "captured(Decimal)", {"captured"}),
    "an argument held ready": ("captured, Fraction", "captured, Decimal", {"partial"}),
    "the code of an object that is called": ("Net(0.5)", "Net(0.4)", {"maker", "method"}),
    "what an object that is called holds": ("Maker(3)", "Maker(5)", {"maker"}),
    "what the object of a method holds": ("Maker(4)", "Maker(5)", {"method"}),
    "what a class holds": ("bias = True", "bias = False", {"maker", "method"}),
    "what is noted down in a list": ("SEEN = []", "SEEN = [1]", set()),
    "something that nothing uses": ("import functools", "UNUSED = 1\nimport functools", set()),
}


def digests(folder: Path, code: str) -> dict[str, str]:
    """What another process makes of the module."""
    (folder / "mine.py").write_text(code)
    run = subprocess.run([sys.executable, "mine.py"], cwd=folder, capture_output=True, text=True, check=True)
    return dict(zip(NAMES, run.stdout.split(), strict=True))


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return digests(tmp_path_factory.mktemp("source"), CODE + TELL)


@pytest.mark.parametrize("edit", EDITS)
def test_it_changes_where_the_answer_may(edit: str, before: dict[str, str], tmp_path: Path) -> None:
    old, new, expected = EDITS[edit]
    assert old in CODE + TELL
    after = digests(tmp_path, (CODE + TELL).replace(old, new) if old else CODE + TELL)
    assert {name for name in NAMES if after[name] != before[name]} == expected
