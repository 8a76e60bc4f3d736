"""NAME.json beside a file of data: what its classes are called and where it comes from."""

from __future__ import annotations

import json
from pathlib import Path

from expunge.errors import ExpungeError


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
