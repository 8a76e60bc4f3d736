"""What can be loaded by name, and where it is; reads headers, never the data."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from expunge.data import digits, npz
from expunge.data.classes import described, stem
from expunge.data.layout import CHANNELS
from expunge.errors import ExpungeError

VARIABLE = "EXPUNGE_DATA"
SUFFIXES = (".npz", ".jsonl.gz")


def data_folder() -> Path | None:
    """The folder that the environment variable EXPUNGE_DATA names, or None where it is not set."""
    value = os.environ.get(VARIABLE, "")
    return Path(value).expanduser() if value else None


def find(name: str) -> Path | None:
    """The file of this name in the data folder, NAME.npz before NAME.jsonl.gz, or None."""
    folder = data_folder()
    if folder is None or not name or Path(name).name != name:
        return None
    return next((path for s in SUFFIXES if (path := folder / f"{name}{s}").is_file()), None)


def names() -> list[str]:
    """The names that `load` knows, in alphabetical order."""
    return sorted({"digits", *(stem(path) for path in _files())})


def available() -> list[dict[str, Any]]:
    """A record for each name, alphabetical, without reading any data.

    Keys: `name`; `kind` ("images", "features", "tokens", "text", or "unknown" of a broken file); `train` and
    `test` (rows, None where counting would mean reading); `shape` (of one input, likewise); `classes` (names, None
    where not told); `where` (path, or "built in"); `source`; `problem` ("" or why it cannot be loaded).
    """
    return [_record(name) for name in names()]


def _files() -> list[Path]:
    folder = data_folder()
    if folder is None or not folder.is_dir():
        return []
    return [path for s in SUFFIXES for path in sorted(folder.glob(f"*{s}"))]


def _record(name: str) -> dict[str, Any]:
    record: dict[str, Any] = {"name": name, "kind": "images", "train": 1438, "test": 359, "shape": (1, 8, 8)}
    path = find(name)
    if name == "digits" or path is None:
        return record | {
            "classes": [str(c) for c in range(10)],
            "where": "built in",
            "source": digits.SOURCE,
            "problem": "",
        }
    record |= {
        "kind": "unknown" if path.suffix == ".npz" else "text",
        "train": None,
        "test": None,
        "shape": None,
        "classes": None,
        "where": str(path),
    }
    record |= {"source": "", "problem": ""}
    try:
        record["classes"], record["source"] = described(path)
        if path.suffix == ".npz":
            record |= _header(path)
    except ExpungeError as problem:
        record["problem"] = str(problem)
    return record


def _header(path: Path) -> dict[str, Any]:
    found = npz.headers(path)
    missing = [key for key in npz.KEYS if key not in found]
    if missing:
        return {"problem": f"{path} lacks {', '.join(missing)}."}
    single = [key for key in npz.KEYS if not found[key][0]]
    if single:
        return {"problem": f"{path}: {', '.join(single)} hold a single value, not one for each row."}
    (n, *shape), dtype = found["x_train"]
    kind = {"u": "images", "f": "features", "i": "tokens"}.get(dtype.kind, str(dtype))
    if kind == "images" and len(shape) == 2:
        shape = [1, *shape]
    elif kind == "images" and shape and shape[-1] in CHANNELS:
        shape = [shape[-1], *shape[:-1]]
    return {"kind": kind, "train": n, "test": found["x_test"][0][0], "shape": tuple(shape)}
