"""Batches: how an epoch's rows are cut into them, shuffled, or so that groups of rows stay together in few.

Only the steps that a group took part in need undoing when the group must go; kept together, it takes part in few.

Shapes: N rows of a part of the data.
"""

from __future__ import annotations

import csv
import hashlib
import math
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from expunge.data.ids import as_in
from expunge.data.rows import Rows
from expunge.errors import ExpungeError, UnknownName, collected

FORMS = "Give class, a list of ids, a mapping from id to group, or a CSV file with the columns id and group."


def shuffled(n: int, size: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """The numbers 0..n-1 in random order, cut into batches of nearly equal size: no tiny last one."""
    return torch.randperm(n, generator=generator).tensor_split(math.ceil(n / size))


def grouped(group_N: Tensor, per_batch: int, size: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """The numbers 0..N-1, cut into batches of nearly equal size in which the members of a group meet.

    Groups are laid end to end in random order, with their rows shuffled, and this line is cut into `per_batch` streams
    of equal length. A batch takes the next few rows of every stream, `e` or `e + 1` of them, with `e` = rows in a
    stream // batches. So n rows of one group are in at most `ceil((n - 1) / e) + 1` batches (e > 0). They are taken in
    strides of the golden section, because any few steps in a row must see groups from all over for momentum to average
    them: neighbours in the line, or a random order, train far worse. Rows inside a batch, which several processes may
    share, are in random order.

    Args:
        group_N: the group of each row, (N,) int64; below 0: a group of its own.
        per_batch: about how many groups meet in a batch, 1..`size`.
        size: rows in a batch at most.
        generator: all randomness.

    Raises:
        ExpungeError: `per_batch` is not in 1..`size`.
    """
    if not 1 <= per_batch <= size:
        raise ExpungeError(f"groups_per_batch must be from 1 to the batch size, {size}; got {per_batch}.")
    n = len(group_N)
    batches = math.ceil(n / size)
    alone_N = -1 - torch.arange(n)
    groups, number_N = torch.where(group_N < 0, alone_N, group_N).unique(return_inverse=True)
    place_N = torch.randperm(len(groups), generator=generator)[number_N]
    order_N = torch.randperm(n, generator=generator)
    order_N = order_N[place_N[order_N].argsort(stable=True)]
    slices, given = [], 0
    for stream in order_N.tensor_split(per_batch):
        each, more = divmod(len(stream), batches)
        counts = torch.full((batches,), each)
        counts[(given + torch.arange(more)) % batches] += 1  # the odd rows in turn, so that all batches stay equal
        given += more
        slices.append(stream.split(counts.tolist()))
    made = [torch.cat(parts) for parts in zip(*slices)]
    first, stride = int(torch.randint(batches, (1,), generator=generator)), _stride(batches)
    taken = [made[(first + stride * step) % batches] for step in range(batches)]
    return tuple(batch[torch.randperm(len(batch), generator=generator)] for batch in taken)


def _stride(n: int) -> int:
    """The least number from the golden section of n on that is prime to it, so that strides visit all of n places."""
    return next(s for s in range(max(1, round(n * (math.sqrt(5) - 1) / 2)), n + 2) if math.gcd(s, n) == 1)


def expected_share(touched: int, total: int, batch: int) -> float:
    """The share of shuffled batches that hold at least one of some rows: 1 - C(N - n, B) / C(N, B).

    Args:
        touched: n, how many rows are asked about, 0..N.
        total: N, all rows, 1 or more.
        batch: B, rows in a batch, 1 or more.

    Source: the hypergeometric distribution; near 1 - exp(-n B / N) for small batches.
    """
    if not (0 <= touched <= total and total >= 1 and batch >= 1):
        raise ExpungeError(
            f"A share needs 0 <= touched <= total, total >= 1 and batch >= 1; got {touched}, {total}, {batch}."
        )
    few, many = sorted((touched, min(batch, total)))  # n and B may change places
    if few + many > total:
        return 1.0
    return -math.expm1(sum(math.log1p(-many / (total - i)) for i in range(few)))


# -- which rows belong together ----------------------------------------------------------------------------------------


def groups_of(together: Any, rows: Rows) -> Tensor:
    """The group of each row, (number of rows,) int64 from 0; -1 for a row that belongs to none.

    Args:
        together: `"class"`; the ids of one group; a mapping from id to group; or a CSV file with the columns `id` and
            `group`.
        rows: the data; ids that are whole numbers may be given as text.

    Raises:
        ExpungeError: ids that no row has, or what `together_problems` tells.
    """
    asked = _members(together)
    if asked is None:
        return rows.y.cpu()
    try:
        index = rows.positions(as_in(rows.ids, asked))
    except ExpungeError as error:
        raise ExpungeError(f"together: {error}") from error
    _, number = np.unique([str(group) for group in asked.values()], return_inverse=True)
    group = torch.full((len(rows),), -1)
    group[index] = torch.from_numpy(number)
    return group


def together_problems(together: Any, per_batch: Any, size: Any) -> list[str]:
    """What is wrong with a recipe's `together` and `groups_per_batch`, whatever the data; a sentence each."""
    found = []
    if not isinstance(per_batch, int) or isinstance(per_batch, bool) or per_batch < 1:
        found.append(f"groups_per_batch must be a whole number, 1 or more; got {per_batch!r}.")
    elif together is not None and isinstance(size, int) and per_batch > size:
        found.append(f"groups_per_batch must be at most batch_size, {size}; got {per_batch}.")
    if together is not None:
        with collected(found):
            _members(together)
    return found


def describe_together(together: Any) -> str:
    """`class`, or how many ids and a digest of them and their groups, the same whichever way they were given."""
    asked = _members(together)
    if asked is None:
        return "class"
    pairs = sorted((str(i), str(group)) for i, group in asked.items())
    return f"{len(pairs)} ids#{hashlib.blake2b(repr(pairs).encode(), digest_size=16).hexdigest()}"


def _members(together: Any) -> dict[Hashable, Hashable] | None:
    """The group of each id; none for the classes."""
    if isinstance(together, Path) or (isinstance(together, str) and together.lower().endswith(".csv")):
        return _read(Path(together))
    if isinstance(together, str):
        if together != "class":
            raise UnknownName("grouping, together:", together, ["class"], FORMS)
        return None
    if isinstance(together, Mapping):
        members = dict(together)
    elif isinstance(together, Iterable):
        values = together.tolist() if isinstance(together, (Tensor, np.ndarray)) else together
        members = dict.fromkeys(values, 0)
    else:
        raise ExpungeError(f"together cannot be {together!r}. {FORMS}")
    wrong = [g for g in members.values() if not isinstance(g, (str, int, np.integer)) or isinstance(g, bool)]
    if wrong:
        raise ExpungeError(f"together: a group is a name or a whole number; got {wrong[0]!r}.")
    if not members:
        raise ExpungeError(f"together names no ids. {FORMS}")
    return members


def _read(path: Path) -> dict[Hashable, Hashable]:
    """The columns `id` and `group` of a CSV file."""
    try:
        lines = list(csv.reader(path.read_text(encoding="utf-8-sig").splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ExpungeError(f"together: {path} cannot be read: {error}.") from error
    header = [cell.strip().lower() for cell in lines[0]] if lines else []
    if not {"id", "group"} <= set(header):
        found = ", ".join(header) or "nothing"
        raise ExpungeError(
            f"together: {path} must begin with a line that names the columns id and group; found {found}."
        )
    at, members = (header.index("id"), header.index("group")), dict[Hashable, Hashable]()
    for number, line in enumerate(lines[1:], start=2):
        if not any(cell.strip() for cell in line):
            continue
        i, group = (line[k].strip() if k < len(line) else "" for k in at)
        if not i or not group:
            raise ExpungeError(f"together: line {number} of {path} lacks an id or a group; leave ungrouped rows out.")
        if members.setdefault(i, group) != group:
            raise ExpungeError(f"together: {path} puts the id {i} into two groups, {members[i]} and {group}.")
    if not members:
        raise ExpungeError(f"together: {path} names no ids.")
    return members


__all__ = ["describe_together", "expected_share", "grouped", "groups_of", "shuffled", "together_problems"]
