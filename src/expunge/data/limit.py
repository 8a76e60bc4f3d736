"""Limits: a random part of the training rows, of all classes alike or of single ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from expunge.data.classes import label
from expunge.data.rows import Rows
from expunge.data.split import stratified
from expunge.errors import ExpungeError, raise_if


def limited(rows: Rows, limit: int | None, seed: int) -> Rows:
    """A stratified random part of at most `limit` rows; all of them when it is None.

    Raises:
        ExpungeError: a limit that is no whole number, or less than a row for each class.
    """
    if limit is None:
        return rows
    if isinstance(limit, bool) or not isinstance(limit, int):
        raise ExpungeError(f"limit must be a whole number of rows; got {limit!r}.")
    if limit <= 0 or limit < min(rows.num_classes, len(rows)):
        raise ExpungeError(
            f"limit must be at least {rows.num_classes}, a row for each class of {rows.name}; got {limit}."
        )
    return rows if limit >= len(rows) else rows.take(stratified(rows.y, limit, seed))


def class_limited(rows: Rows, limits: Mapping[int | str, int] | None, seed: int) -> Rows:
    """The rows with a random part of single classes; other classes, and the order of the rows, stay as they are.

    Args:
        rows: what to take from.
        limits: for a class, by label or name, how many of its rows stay at most, 1 or more.
        seed: of the draw.

    Raises:
        ExpungeError: classes that are not there or limited twice, limits that are no whole numbers from 1; all of them.
    """
    if limits is None:
        return rows
    if not isinstance(limits, Mapping):
        raise ExpungeError(f"class_limit gives the number of rows for single classes, e.g. {{3: 100}}; got {limits!r}.")
    problems, most = list[str](), dict[int, int]()
    for name, most_rows in limits.items():
        try:
            number = label(name, rows.classes)
            problems += [f"class_limit: class {number} is limited twice."] if number in most else []
            most[number] = _whole(name, most_rows)
        except ExpungeError as error:
            problems.append(f"class_limit: {error}")
    raise_if(problems)
    stays = torch.ones(len(rows), dtype=torch.bool)
    for number, most_rows in most.items():
        at = (rows.y == number).nonzero().flatten()
        if len(at) > most_rows:
            stays[at] = False
            stays[at[stratified(rows.y[at], most_rows, seed)]] = True
    return rows if bool(stays.all()) else rows.take(stays)


def _whole(name: Any, limit: Any) -> int:
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise ExpungeError(f"a class keeps a whole number of rows, 1 or more; got {limit!r} for {name!r}.")
    return limit
