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

    A number may be the name of one class and the label of another. `"name:1"` and `"label:1"` say which is meant.

    Raises:
        UnknownName: no class has this name.
        ExpungeError: no class has this label, or one has it as label and another one as name.
    """
    names = list(classes)
    counted = isinstance(given, (int, np.integer)) and not isinstance(given, bool)
    if not counted and not isinstance(given, str):
        raise UnknownName("class", given, names)
    text = str(given)
    kind, colon, told = text.partition(":")
    if colon and kind in ("name", "label") and text not in names:
        if kind == "name":
            return _named(told, names)
        return _labelled(told, names)
    if not (counted or text.isdecimal()):
        return _named(text, names)
    by_name = [names.index(name) for name in (text, str(int(text))) if name in names][:1]
    by_label = [int(text)] if 0 <= int(text) < len(names) else []
    if by_name and by_label and by_name != by_label:
        raise ExpungeError(
            f"{text} is the label of class {names[by_label[0]]!r} and the name of the class with label {by_name[0]}. "
            f"Say which is meant: 'label:{by_label[0]}' or 'name:{names[by_name[0]]}'."
        )
    return by_name[0] if by_name else _labelled(text, names)


def _named(name: str, names: list[str]) -> int:
    if name not in names:
        raise UnknownName("class", name, names)
    return names.index(name)


def _labelled(text: str, names: list[str]) -> int:
    number = int(text) if text.lstrip("-").isdecimal() else -1
    if not 0 <= number < len(names):
        raise ExpungeError(f"There is no class {text}: labels run 0..{len(names) - 1} ({', '.join(names[:20])}).")
    return number
