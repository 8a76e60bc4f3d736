"""Ids as people give them: a list, an array, or a file."""

from __future__ import annotations

import csv
import re
from collections.abc import Hashable, Iterable, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from expunge.errors import ExpungeError

EXPECTED = "ids are a list of whole numbers or strings, or a file"
_NUMBER = re.compile(r"-?[0-9]{1,20}")
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
    """The ids in a text file (one a line) or a CSV file (the column `id`; without a header, the first column).

    Lines with nothing in them are passed over; no other is.

    Raises:
        ExpungeError: the file cannot be read, holds no id, or has a line without one.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ExpungeError(f"The ids in {path} cannot be read: {error}. Give a text or CSV file.") from error
    ids = _column(text, path) if _is_csv(path) else [line.strip() for line in text.splitlines() if line.strip()]
    if not ids:
        raise ExpungeError(f"{path} holds no ids; expected one a line, or a CSV file with a column 'id'.")
    return ids


def _column(text: str, path: Path) -> list[str]:
    reader = csv.reader(StringIO(text, newline=""))
    try:
        lines = [(reader.line_num, [cell.strip() for cell in line]) for line in reader]
    except csv.Error as error:
        raise ExpungeError(f"{path}, line {reader.line_num}: {error}.") from error
    lines = [(number, cells) for number, cells in lines if any(cells)]
    header = [cell.lower() for cell in lines[0][1]] if lines else []
    column = header.index("id") if "id" in header else 0
    lines = lines[1:] if "id" in header else lines
    if "id" not in header and lines and all(len(c) > 1 and all(x.isdigit() for x in c if x) for _, c in lines):
        raise ExpungeError(
            f"{path} has no header and only whole numbers, {len(lines[0][1])} in its first line, of which the first "
            "alone would be read. Write one id a line; or a header, with the column of ids called 'id'."
        )
    empty = [str(number) for number, cells in lines if not "".join(cells[column : column + 1])]
    if empty:
        some = f"line{'s' * (len(empty) > 1)} {', '.join(empty[:10])}{' …' * (len(empty) > 10)}"
        raise ExpungeError(
            f"{path} has no id in {some}, so rows that are to go could stay. Fill in or remove each such line; ids are "
            f"read from {'the column' if 'id' in header else 'column'} {header[column] if 'id' in header else 1!r}."
        )
    return [cells[column] for _, cells in lines]


def misread(ids: Sequence[Hashable], unknown: Sequence[bool], path: str | Path) -> str:
    """Why ids of a file may be unknown, where it can be told: a header that was read as an id, or another separator.

    Args:
        ids: what was read.
        unknown: for each of them, whether no row has it.
        path: the file.
    """
    if _is_csv(path) and unknown[0] and not all(unknown):
        return f"{ids[0]!r} looks like the header of {path}; in a table with one, call the column of ids 'id'."
    for separator, name in SEPARATORS.items():
        if all(separator in str(i) for i in ids):
            return (
                f"{path} looks {name}-separated; what is read is one id a line, or a file.csv separated by commas with "
                "a column 'id' (without a header, its first column)."
            )
    return ""


def id_array(ids: Sequence[Hashable] | np.ndarray) -> np.ndarray:
    """The ids of rows, (N,), integers or strings.

    Raises:
        ExpungeError: ids that are neither.
    """
    array = np.asarray(ids)
    if array.ndim != 1 or array.dtype.kind not in "iuUS":
        raise ExpungeError(f"Ids must be one integer or string for each row; got {array.dtype} of shape {array.shape}.")
    return array


def number(i: Any) -> Any:
    """The whole number of 64 bits that a text spells, as ids in a file are spelled; any other id as it is."""
    if not isinstance(i, str) or not _NUMBER.fullmatch(i.strip()):
        return i
    spelled = int(i)
    return spelled if -(1 << 63) <= spelled < 1 << 64 else i


def as_in(array: np.ndarray, ids: Iterable[Any]) -> list[Any]:
    """These ids as the ids of rows are: numbers where those are numbers, though they be given as text."""
    return [number(i) for i in ids] if array.dtype.kind in "iu" else list(ids)


def plain(i: Hashable) -> Any:
    """An id as plain Python has it, so that equal ones are found."""
    return i.item() if isinstance(i, np.generic) else i


def _is_csv(path: str | Path) -> bool:
    return Path(path).suffix.lower() == ".csv"


def _hashable(i: object) -> bool:
    try:
        hash(i)
    except TypeError:
        return False
    return not isinstance(i, Tensor)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) < 60 else text[:57] + "…"
