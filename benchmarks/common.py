"""What the benchmarks share: where results go, and the machine they were measured on."""

from __future__ import annotations

import json
import os
import platform
import shlex
import statistics
import sys
from pathlib import Path
from typing import Any

import torch

import expunge

RESULTS = Path(__file__).parent / "results"


def needs_data(*names: str) -> None:
    """End with a message when EXPUNGE_DATA lacks one of these datasets."""
    known = expunge.data.names()
    missing = [name for name in names if name not in known]
    if missing:
        sys.exit(f"Set EXPUNGE_DATA to a folder that holds {', '.join(missing)} (see the README), and run this again.")


def ratio(theirs: list[float], ours: list[float]) -> dict[str, float]:
    """How many times faster ours is, pair by pair: median, lowest and highest."""
    pairs = [a / b for a, b in zip(theirs, ours)]
    return {"median": statistics.median(pairs), "lowest": min(pairs), "highest": max(pairs)}


def earlier(name: str) -> dict[str, Any]:
    """The results that were saved under a name, without what `save` puts beside them; none where there are none."""
    path = RESULTS / f"{name}.json"
    there = json.loads(path.read_text()) if path.is_file() else {}
    return {key: value for key, value in there.items() if key not in ("command", "machine")}


def save(name: str, results: dict[str, Any]) -> None:
    """Write results with the command and the machine beside them, and print them."""
    about = {
        "command": shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
    }
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps({**about, **results}, indent=1)
    (RESULTS / f"{name}.json").write_text(text + "\n")
    print(text)
