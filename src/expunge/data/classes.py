"""What classes are called: from the NAME.json beside a file of data, and back from a name to its label."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from expunge.errors import ExpungeError, UnknownName


def described(path: Path) -> tuple[list[str] | None, str]:
    """Class names in label order (None where not told) and the source, from the NAME.json beside `path`.

    Raises:
        ExpungeError: the JSON cannot be read, or `classes` is not a list of names.
    """
    card = path.with_name(stem(path) + ".json")
    if not card.is_file():
        return None, ""
    try:
        content = json.loads(card.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise ExpungeError(f"{card} is not readable JSON: {problem}") from problem
    classes = content.get("classes") if isinstance(content, dict) else None
    if not isinstance(content, dict) or not (classes is None or isinstance(classes, list)):
        raise ExpungeError(f'{card} must be an object like {{"classes": ["cat", "dog"], "source": "..."}}.')
    return None if classes is None else [str(c) for c in classes], str(content.get("source", ""))


def stem(path: Path) -> str:
    """The NAME of NAME.npz or NAME.jsonl.gz."""
    return path.name.removesuffix(".gz").removesuffix(".jsonl").removesuffix(".npz")


def label(given: Any, classes: Sequence[str]) -> int:
    """The label of a class that is given by name, or by label as a number or text.

    Raises:
        UnknownName: no class has this name.
        ExpungeError: no class has this label.
    """
    if isinstance(given, str) and given in classes:
        return list(classes).index(given)
    counted = isinstance(given, (int, np.integer)) and not isinstance(given, bool)
    if not counted and not (isinstance(given, str) and given.isdecimal()):
        raise UnknownName("class", given, classes)
    if not 0 <= int(given) < len(classes):
        raise ExpungeError(
            f"There is no class {int(given)}: labels run 0..{len(classes) - 1} ({', '.join(classes[:20])})."
        )
    return int(given)
