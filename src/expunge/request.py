"""Request: which examples must go.

Every row of the training data is in one of three states: *keep*, *forget*, or *gone* (forgotten by an earlier
request). Gone rows are never handed back as retain data; with two states a second request would train them back in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from expunge.data.adapt import as_rows
from expunge.data.classes import label
from expunge.data.ids import as_in, listed, misread, plain, read_ids
from expunge.data.rows import Rows
from expunge.data.split import check_seed, stratified
from expunge.errors import ExpungeError, collected, raise_if

KEEP, FORGET, GONE = 0, 1, 2


@dataclass(frozen=True)
class Row:
    """One training example as a predicate sees it.

    Args:
        id: the row's id.
        label: its label.
        name: the name of its class.
        x: its input as the model would get it.
    """

    id: Any
    label: int
    name: str
    x: Tensor


class Request:
    """Which rows of a training set must go; exactly one of `classes`, `ids`, `where`, `fraction` says so.

    Args:
        data: the training set: `Rows`, a map-style `Dataset` of (input, label), or a pair (x, y) of arrays.
        classes: every row of these classes; labels or class names. Where names are numbers, `"name:1"` and `"label:1"`
            say which is meant.
        ids: the rows with these ids; a sequence, or the path of a text file (an id a line) or CSV file (the column
            `id`; without a header, its first column).
        where: every row for which this function of a `Row` is true.
        fraction: a random share of all rows not yet gone, above 0 and below 1.
        seed: of the random share. Default 0.
        stratify: draw the random share class by class in proportion; for `fraction` alone. Default no, as in the
            SalUn protocol.
        gone: what earlier requests removed from the model: ids as above, or a request on the same data.

    Raises:
        ExpungeError: nothing selected, everything selected, unknown classes or ids, rows that are already gone, or
            a class request that leaves fewer than two classes. All of it before any compute.
    """

    def __init__(
        self,
        data: Any,
        *,
        classes: Sequence[int | str] | None = None,
        ids: Sequence[Hashable] | str | Path | None = None,
        where: Callable[[Row], bool] | None = None,
        fraction: float | None = None,
        seed: int = 0,
        stratify: bool = False,
        gone: Iterable[Hashable] | Request | str | Path = (),
    ) -> None:
        given = {"classes": classes, "ids": ids, "where": where, "fraction": fraction}
        check_form(**given, seed=seed, stratify=stratify)
        (how,) = (name for name, value in given.items() if value is not None)
        self.rows: Rows = as_rows(data)
        self.state = torch.zeros(len(self.rows), dtype=torch.int8)
        self.state[self._positions(gone)] = GONE
        self.classes: tuple[int, ...] = ()
        if classes is not None:
            self.classes = self._labels(classes)
            forget = torch.isin(self.rows.y, torch.tensor(self.classes)) & (self.state == KEEP)
            selected = forget.nonzero().flatten()
        elif ids is not None:
            selected = self._by_ids(ids)
        elif where is not None:
            selected = torch.tensor([i for i in range(len(self.rows)) if self._answer(where, i)], dtype=torch.long)
            selected = selected[self.state[selected] != GONE]
        else:
            selected = self._by_fraction(fraction, seed, stratify)
        self.state[selected] = FORGET
        self._check(f"{how}={_short(given[how])}")

    # -- what it says ------------------------------------------------------------------------------------------

    @property
    def scope(self) -> str:
        """`"class"` when whole classes go, otherwise `"samples"`."""
        return "class" if self.classes else "samples"

    @cached_property
    def forget(self) -> Tensor:
        """Positions of the rows that must go, (n,) int64."""
        return (self.state == FORGET).nonzero().flatten()

    @cached_property
    def keep(self) -> Tensor:
        """Positions of the rows that stay, (n,) int64."""
        return (self.state == KEEP).nonzero().flatten()

    @cached_property
    def gone(self) -> Tensor:
        """Positions of the rows that an earlier request removed, (n,) int64."""
        return (self.state == GONE).nonzero().flatten()

    @property
    def gone_classes(self) -> tuple[int, ...]:
        """Labels of which no row is kept or to be forgotten any more: an earlier request removed the whole class."""
        there = set(self.rows.y[self.state != GONE].tolist())
        return tuple(c for c in sorted(set(self.rows.y[self.gone].tolist())) if c not in there)

    @cached_property
    def hash(self) -> str:
        """A digest of the data and of every row's state."""
        digest = hashlib.blake2b(self.rows.hash.encode(), digest_size=16)
        digest.update(self.state.numpy().tobytes())
        return digest.hexdigest()

    @property
    def text(self) -> str:
        """The request as a sentence."""
        n, total = len(self.forget), len(self.rows)
        names = ", ".join(self.rows.classes[c] for c in self.classes)
        what = f"class{'es' if len(self.classes) > 1 else ''} {names}: " if self.classes else ""
        after = f" ({len(self.gone):,} more are already gone)" if len(self.gone) else ""
        return f"Forget {what}{n:,} of {total:,} rows of {self.rows.name}{after}."

    def __repr__(self) -> str:
        return f"<Request: {self.text}>"

    def after(self, gone: Iterable[Hashable] | Request | str | Path) -> Request:
        """The same request on a model from which other rows have gone already.

        Args:
            gone: ids, their file, or an earlier request on the same data (its forget and gone rows are gone now).

        Raises:
            ExpungeError: a row to be forgotten is among them, or nothing would be left to forget.
        """
        index = self._positions(gone)
        index = index[self.state[index] != GONE]
        if not len(index):
            return self
        if not self.classes:  # rows of a class that went by an earlier request need not be forgotten again
            self._refuse_gone(index[self.state[index] == FORGET])
        later = object.__new__(Request)
        later.rows, later.classes = self.rows, self.classes
        later.state = self.state.clone()
        later.state[index] = GONE
        later._check("after the earlier request")
        return later

    # -- how rows are chosen -----------------------------------------------------------------------------------

    def _labels(self, classes: Any) -> tuple[int, ...]:
        names = self.rows.classes
        several = classes.tolist() if isinstance(classes, (Tensor, np.ndarray)) else classes
        if isinstance(several, str) or not isinstance(several, Iterable):
            several = [several]
        labels, problems = set(), list[str]()
        for c in several:
            with collected(problems):
                labels.add(label(c, names))
        raise_if(problems)
        return tuple(sorted(labels))

    def _positions(self, ids: Iterable[Hashable] | Request | str | Path) -> Tensor:
        """Where the rows with these ids are, in the order given."""
        if isinstance(ids, Request):
            ids = ids.rows.ids[torch.cat([ids.forget, ids.gone]).numpy()]
        wanted = as_in(self.rows.ids, read_ids(ids) if isinstance(ids, (str, Path)) else listed(ids))
        try:
            return self.rows.positions(wanted)
        except ExpungeError as error:
            if not isinstance(ids, (str, Path)):
                raise
            known = set(self.rows.ids.tolist())
            told = misread(wanted, [i not in known for i in wanted], ids)
            raise ExpungeError(f"{error} {told}".rstrip()) from error

    def _by_ids(self, ids: Sequence[Hashable] | str | Path) -> Tensor:
        selected: Tensor = torch.unique(self._positions(ids))
        self._refuse_gone(selected[self.state[selected] == GONE])
        return selected

    def _by_fraction(self, fraction: Any, seed: int, stratify: bool) -> Tensor:
        there = (self.state == KEEP).nonzero().flatten()
        size = round(float(fraction) * len(there))
        if stratify and size:
            return there[stratified(self.rows.y[there], size, seed)]
        order = torch.randperm(len(there), generator=torch.Generator().manual_seed(seed))
        return there[order[:size]]

    def _row(self, i: int) -> Row:
        label = int(self.rows.y[i])
        return Row(self.rows.ids[i], label, self.rows.classes[label], self.rows.x(torch.tensor([i]))[0])

    def _answer(self, where: Callable[[Row], bool], i: int) -> bool:
        row = self._row(i)
        try:
            answer: object = where(row)
        except Exception as error:  # a user's function may raise anything
            raise ExpungeError(
                f"where failed on the row with id {plain(row.id)!r}, {type(error).__name__}: {error}. It gets a Row "
                f"with {', '.join(f.name for f in fields(Row))}."
            ) from error
        try:
            return bool(answer)
        except (TypeError, ValueError, RuntimeError) as error:  # an array or tensor of several answers
            raise ExpungeError(
                "where is asked of one row after another, and must say true or false of it; it returned "
                f"{_short(repr(answer))}."
            ) from error

    # -- what is refused ---------------------------------------------------------------------------------------

    def _refuse_gone(self, index: Tensor) -> None:
        if len(index):
            sample = ", ".join(repr(self.rows.ids[i].item()) for i in index[:5].tolist())
            raise ExpungeError(
                f"{len(index)} of the requested rows are already gone from this model (ids {sample}); "
                "leave them out, or start from the model before that request."
            )

    def _check(self, how: str) -> None:
        n, total = len(self.forget), len(self.rows)
        problems = []
        if not n:
            problems.append(f"Request selects 0 of {total:,} examples ({how}); nothing would be forgotten.")
        if n and not len(self.keep):
            problems.append(
                f"Request selects every one of the {total:,} examples ({how}); nothing would be left to keep. "
                "Delete the model instead."
            )
        left = self.rows.y[self.keep].unique()
        if len(self.keep) and len(left) < 2:
            problems.append(f"Request leaves {len(left)} class to tell apart ({how}); a classifier needs two or more.")
        raise_if(problems)


def check_form(
    *,
    classes: Any = None,
    ids: Any = None,
    where: Any = None,
    fraction: Any = None,
    seed: Any = 0,
    stratify: Any = False,
) -> None:
    """Refuse what no data could make a request of; see `Request`.

    Raises:
        ExpungeError: rows named in no way or in several, a fraction, seed or function that is none, `stratify` beside
            anything but a fraction.
    """
    given = {"classes": classes, "ids": ids, "where": where, "fraction": fraction}
    chosen = [name for name, value in given.items() if value is not None]
    if len(chosen) != 1:
        raise ExpungeError(
            f"A request names its rows in exactly one way, by {', '.join(given)}; "
            f"got {' and '.join(chosen) or 'none of them'}."
        )
    if where is not None and not callable(where):
        raise ExpungeError(f"where is a function of a Row that says whether the row must go; got {where!r}.")
    if not isinstance(stratify, (bool, np.bool_)):
        raise ExpungeError(f"stratify is true or false; got {stratify!r}.")
    if stratify and fraction is None:
        raise ExpungeError(f"stratify is how a random share is drawn, so it goes with fraction; got {chosen[0]}.")
    if fraction is not None:
        if not isinstance(fraction, (int, float, np.floating)) or not 0 < fraction < 1:
            raise ExpungeError(f"fraction must lie between 0 and 1 (both excluded); got {fraction!r}.")
        check_seed(seed)


def _short(value: Any) -> str:
    text = "…" if callable(value) else str(value)
    return text if len(text) < 60 else text[:57] + "…"
