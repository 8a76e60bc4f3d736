"""Ids as people give them: a list, an array, or a file."""

from __future__ import annotations

import csv
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from expunge.errors import ExpungeError

EXPECTED = "ids are a list of whole numbers or strings, or a file"
SEPARATORS = {"\t": "tab", ";": "semicolon", ",": "comma"}


def listed(ids: Any) -> list[Hashable]:
    """Ids given as a list or an array, one by one; tensors do not compare as ids do, so they become numbers.

    Raises:
        ExpungeError: something else, or something in it that can be no id.
    """
    given = ids.tolist() if isinstance(ids, (Tensor, np.ndarray)) else ids
    if not isinstance(given, Iterable) or isinstance(given, (str, bytes)):
        raise ExpungeError(f"{EXPECTED}; got {_short(ids)}.")
    found = [i.item() if isinstance(i, Tensor) and not i.ndim else i for i in given]
    wrong = [i for i in found if not _hashable(i)]
    if wrong:
        raise ExpungeError(f"{EXPECTED}; got {_short(wrong[0])} among them.")
    return found


def read_ids(path: str | Path) -> list[str]:
    """The ids in a text file (one a line) or a CSV file (the column `id`, or else the first column).

    Raises:
        ExpungeError: the file cannot be read, or holds no id.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ExpungeError(f"The ids in {path} cannot be read: {error}. Give a text or CSV file.") from error
    if path.suffix.lower() == ".csv":
        lines = [line for line in csv.reader(text.splitlines()) if line]
        header = [cell.strip().lower() for cell in lines[0]] if lines else []
        column = header.index("id") if "id" in header else 0
        lines = lines[1:] if "id" in header else lines
        ids = [line[column].strip() for line in lines if len(line) > column]
    else:
        ids = [line.strip() for line in text.splitlines()]
    ids = [i for i in ids if i]
    if not ids:
        raise ExpungeError(f"{path} holds no ids; expected one a line, or a CSV file with a column 'id'.")
    return ids


def separated(ids: Sequence[Hashable], path: str | Path) -> str:
    """What to say of a file whose ids nobody knows, where each of them looks like a line of a table; else nothing."""
    for separator, name in SEPARATORS.items():
        if all(separator in str(i) for i in ids):
            return (
                f"{path} looks {name}-separated; what is read is one id a line, or a file.csv separated by commas with "
                "a column 'id', or else its first column."
            )
    return ""


def _hashable(i: object) -> bool:
    try:
        hash(i)
    except TypeError:
        return False
    return not isinstance(i, Tensor)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) < 60 else text[:57] + "…"
