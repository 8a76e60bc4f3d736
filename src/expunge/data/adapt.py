"""The user's own data as rows: arrays, torch datasets, Hugging Face datasets.

Shapes: N rows, K rows that are looked at first.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from expunge.data import hugging_face
from expunge.data.images import is_image, pixels
from expunge.data.layout import inputs
from expunge.data.rows import Rows, Scale
from expunge.data.unseen import check_unseen
from expunge.errors import ExpungeError

ACCEPTED = "Rows, a pair (x, y) of arrays or tensors, or a map-style dataset whose items are (input, label)"
MEMORY = 2_000_000_000  # bytes; a common laptop spares as much
PROBES = 8
SCALE_ROWS = 512


def as_rows(
    data: Any,
    *,
    ids: Any = None,
    classes: Sequence[str] | None = None,
    name: str | None = None,
    memory: int = MEMORY,
) -> Rows:
    """The user's data as rows; what is always the same and fits in memory is read once into one tensor.

    A dataset whose rows differ between two readings (random augmentation inside) or that is larger than
    `memory` is read row by row, whenever a row is asked for. uint8 images of such a dataset are scaled by 512
    rows spread over it.

    Args:
        data: `Rows` (returned as they are, unless another argument renames them); a pair `(x, y)` of arrays
            or tensors; a map-style torch `Dataset` of `(input, label)`; a `datasets.Dataset`. Inputs as
            `layout.inputs` takes them, or Pillow images.
        ids: one id for each row. Default: `data.ids` where there are such, else the positions.
        classes: names in label order. Default: `data.classes` where it names every label, else the labels.
        name: what reports call this data. Default: "data".
        memory: the most bytes to hold. Default: 2 GB.

    Raises:
        ExpungeError: data of another kind (what is accepted is said), a row that cannot be read, rows of two shapes,
            labels that are not integers from 0, NaN, `data.ids` that are not one for each row.

    Cost: one pass over the dataset; none where it stays unread and has `targets`, `labels` or `y`.
    """
    if isinstance(data, Rows):
        return _renamed(data, ids, classes, name)
    if isinstance(data, TensorDataset) and len(data.tensors) == 2:
        data = data.tensors
    if _is_pair(data):
        return _from_pair(data[0], data[1], ids, classes, name or "data")
    _check_kind(data)
    if hasattr(data, "column_names") and hasattr(data, "features"):
        return hugging_face.rows(data, ids=ids, classes=classes, name=name)
    with _random_state_kept():
        return _from_dataset(data, ids, classes, name or "data", memory)


def rows_like(data: Any, train: Rows) -> Rows:
    """Rows never trained on, with the classes and the scale of the training rows; `data` as for `as_rows`.

    Raises:
        ExpungeError: none, they are training rows, they have labels that no class has, or as for `as_rows`.
    """
    if data is None:
        raise ExpungeError(f"unseen: give rows that no model was trained on, such as a test set: {ACCEPTED}; got None.")
    rows = data if isinstance(data, Rows) else as_rows(data, classes=train.classes, name="unseen")
    rows = rows if rows.scale == train.scale else rows.scaled_like(train)
    check_unseen(rows, train)
    return rows


def _renamed(data: Rows, ids: Any, classes: Sequence[str] | None, name: str | None) -> Rows:
    if ids is None and classes is None and name is None:
        return data
    return Rows(
        data.source,
        data.y,
        ids=data.ids if ids is None else ids,
        classes=data.classes if classes is None else classes,
        name=name or data.name,
        scale=data.scale,
        texts=data.texts,
        vocabulary=data.vocabulary,
        hash_inputs=data.hash_inputs,
    )


def _is_pair(data: Any) -> bool:
    """A tuple of two; a list of two only if both are arrays, since it could be two examples."""
    if isinstance(data, tuple) and len(data) == 2:
        return True
    return isinstance(data, list) and len(data) == 2 and all(hasattr(part, "shape") for part in data)


def _from_pair(x: Any, y: Any, ids: Any, classes: Sequence[str] | None, name: str) -> Rows:
    if isinstance(y, Dataset):
        raise ExpungeError(f"Got a pair of datasets; give one of them, e.g. the training set. Expected {ACCEPTED}.")
    y_N = y.cpu() if isinstance(y, Tensor) else y
    return Rows(inputs(x, name), y_N, ids=ids, classes=classes, name=name)


def _check_kind(data: Any) -> None:
    found = type(data).__name__
    if isinstance(data, Mapping):
        raise ExpungeError(f"Got a {found} with {', '.join(map(str, data))}; give one of these, not all.")
    if isinstance(data, IterableDataset) or not (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
        raise ExpungeError(
            f"{found} has no length or cannot be asked for a row by its position, so no row can be named for "
            f"removal. Expected {ACCEPTED}; `list(data)` makes one of a stream that fits in memory."
        )
    if not len(data):
        raise ExpungeError(f"{found} has no rows.")


def _from_dataset(data: Any, ids: Any, classes: Sequence[str] | None, name: str, memory: int) -> Rows:
    items = _Items(data, name)
    n = len(items)
    if ids is None:
        ids = _own_ids(data, n)
    at_K = _spread(n, PROBES)
    first, second = ([items[i] for i in at_K] for _ in range(2))
    size = first[0][0].numel() * first[0][0].element_size() * n
    steady = _same(first, second)
    if steady and size <= memory:
        x_N, y_N = items.read()
        steady = _same(first, [(x_N[i], int(y_N[i])) for i in at_K])  # a third look at rare randomness
        if steady:
            return Rows(inputs(x_N, name), y_N, ids=ids, classes=_classes(data, classes, y_N), name=name)
    y_N = items.labels(dict(zip(at_K, (label for _, label in first))))
    lazy = _Ready(items)
    scale = None
    if first[0][0].dtype == torch.uint8:
        spread = _spread(n, SCALE_ROWS)
        scale = Scale.of(torch.stack([lazy[i][0] for i in spread]))
    classes = _classes(data, classes, y_N)
    return Rows(lazy, y_N, ids=ids, classes=classes, name=name, scale=scale, hash_inputs=steady)


def _spread(n: int, most: int) -> list[int]:
    """Positions spread evenly over `n` rows, the first and the last among them."""
    return [int(i) for i in np.linspace(0, n - 1, min(most, n))]


def _classes(data: Any, classes: Sequence[str] | None, y_N: Tensor) -> Sequence[str] | None:
    while (own := getattr(data, "classes", None)) is None and hasattr(data, "dataset"):  # a part of another
        data = data.dataset
    if classes is None and isinstance(own, (list, tuple, np.ndarray)) and len(own) > int(y_N.max()):
        return [str(c) for c in own]
    return classes


def _own_ids(data: Any, n: int) -> Any:
    """The ids that a dataset has of its own; none where it has no sequence of that name."""
    own: Any = getattr(data, "ids", None)
    if isinstance(own, (str, bytes, Mapping)):
        return None
    try:
        count = len(own)
    except TypeError:  # no sequence, such as a method of that name
        return None
    if count != n:
        raise ExpungeError(
            f"{type(data).__name__} has {n} rows and {count} ids (its attribute ids), so no row is certain to be "
            "the one that an id names. Give one id for each row, in its order, or no attribute ids."
        )
    return own


def _one_each(values: Any, n: int) -> bool:
    return hasattr(values, "__len__") and not isinstance(values, (str, Mapping)) and len(values) == n


def _same(one: list[tuple[Tensor, int]], other: list[tuple[Tensor, int]]) -> bool:
    # Two NaN count as the same, so that bad values are read, found and named.
    return all(y == y2 and bool(((x == x2) | (x.isnan() & x2.isnan())).all()) for (x, y), (x2, y2) in zip(one, other))


class _Items(Dataset[tuple[Tensor, int]]):
    """The items of a user's dataset, each checked and as a tensor with an integer."""

    def __init__(self, data: Any, name: str) -> None:
        self.data, self.name = data, name
        self.shape: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        try:
            item = self.data[i]
        except IndexError:  # the end, for those who iterate
            raise
        except Exception as error:  # a user's dataset may raise anything
            raise ExpungeError(
                f"{self.name}: row {i} cannot be read: {error}. If it may not be read, give Rows(dataset, labels, "
                "hash_inputs=False)."
            ) from error
        if not isinstance(item, (tuple, list)) or len(item) != 2:
            raise ExpungeError(f"{self.name}: row {i} is a {type(item).__name__}, not a pair; expected {ACCEPTED}.")
        try:
            x = torch.from_numpy(pixels(item[0]).copy()) if is_image(item[0]) else torch.as_tensor(item[0])
        except (TypeError, ValueError, RuntimeError) as problem:
            raise ExpungeError(f"{self.name}: the input of row {i} cannot be a tensor: {problem}") from problem
        if self.shape is None:
            self.shape = tuple(x.shape)
        if tuple(x.shape) != self.shape:
            raise ExpungeError(
                f"{self.name}: row {i} has shape {tuple(x.shape)}, other rows {self.shape}; all must have one shape."
            )
        return x, self._label(item[1], i)

    def _label(self, label: Any, i: int) -> int:
        try:
            if int(label) == label:
                return int(label)
        except (TypeError, ValueError, RuntimeError):  # a word, NaN, several numbers
            pass
        raise ExpungeError(f"{self.name}: the label of row {i} is {label!r}; expected one integer from 0.")

    def read(self) -> tuple[Tensor, Tensor]:
        """All inputs and labels."""
        x, y = self[0]
        x_N = torch.empty((len(self), *x.shape), dtype=x.dtype)
        y_N = torch.empty(len(self), dtype=torch.long)
        for i in range(len(self)):
            x, y = self[i]
            x_N[i], y_N[i] = x, y
        return x_N, y_N

    def labels(self, known: dict[int, int]) -> Tensor:
        """All labels: an attribute of the dataset where it agrees with the rows seen, otherwise one pass."""
        for attribute in ("targets", "labels", "y"):
            values = getattr(self.data, attribute, None)
            if not _one_each(values, len(self)):
                continue
            y_N = np.asarray(values)
            if y_N.ndim == 1 and y_N.dtype.kind in "iu" and all(y_N[i] == y for i, y in known.items()):
                return torch.from_numpy(y_N.astype(np.int64))
        return torch.tensor([self[i][1] for i in range(len(self))])


class _Ready(Dataset[tuple[Tensor, int]]):
    """Items in the layout of rows, read when asked for."""

    def __init__(self, items: _Items) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        x, y = self.items[i]
        return inputs(x[None], self.items.name)[0], y


@contextmanager
def _random_state_kept() -> Iterator[None]:
    """Reading a dataset that augments must not change the caller's random numbers."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
