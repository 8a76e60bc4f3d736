"""Rows: examples with labels and ids that stay the same whatever is selected from them.

Shapes: N rows, B batch, C channels, H height, W width, L tokens.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from expunge.data.digest import digest_each
from expunge.data.ids import id_array, plain
from expunge.data.labels import labels
from expunge.data.positions import positions
from expunge.errors import ExpungeError, raise_if


@dataclass(frozen=True)
class Scale:
    """How stored values become model inputs: `((x / 255 if uint8 else x) - mean) / std`, channel by channel.

    Args:
        mean: one value for each channel, in units of the divided values.
        std: likewise, above 0.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, x_NCHW: Tensor) -> Scale:
        """Mean and standard deviation of each channel of uint8 images, in one pass over their values."""
        mean, std = [], []
        for channel in x_NCHW.transpose(0, 1):
            counts = torch.bincount(channel.flatten(), minlength=256).double()
            levels = torch.arange(256, dtype=torch.float64) / 255
            m = (counts * levels).sum() / counts.sum()
            v = (counts * (levels - m) ** 2).sum() / counts.sum()
            mean.append(float(m))
            std.append(max(float(v.sqrt()), 1e-3))  # a constant channel must not divide by zero
        return cls(tuple(mean), tuple(std))

    def __call__(self, x_BCHW: Tensor) -> Tensor:
        """Scaled float32 images of the same shape."""
        mean = torch.tensor(self.mean, device=x_BCHW.device).view(-1, 1, 1)
        std = torch.tensor(self.std, device=x_BCHW.device).view(-1, 1, 1)
        unit = 255.0 if x_BCHW.dtype == torch.uint8 else 1.0
        return x_BCHW.float().mul_(1 / (unit * std)).sub_(mean / std)


class Rows(Dataset[tuple[Tensor, Tensor]]):
    """A map-style dataset whose rows keep their ids; data that fits is one tensor and a batch is an index select.

    Args:
        x: inputs. A tensor or array of N examples: uint8 images (N, C, H, W), float inputs (N, ...), or int64
            tokens (N, L). Or a map-style `Dataset` returning `(input, label)`, read item by item.
        y: labels, (N,), integers from 0.
        ids: one id for each row, all different; strings or integers. Default: the positions 0..N-1.
        classes: the names of the classes in label order. Default: the labels as text, up to the largest.
        name: what reports call this data.
        scale: how uint8 images become model inputs. Default: `Scale.of(x)` for uint8 images, otherwise none.
        texts: the raw text of each row, where the inputs are tokens made from it. Default: none.
        vocabulary: the word of each token number, where the inputs are tokens. Default: none.
        hash_inputs: whether `hash`, by which models and results are found again, reads inputs too. No for a dataset
            whose rows may not all be read, or differ at every reading; two of them with the same labels and ids count
            as the same data then. Default yes.

    Raises:
        ExpungeError: rows, labels, ids and texts of different number; labels that are not integers from 0
            below the number of classes; NaN or infinite inputs; ids or names of classes used twice.
    """

    def __init__(
        self,
        x: Any,
        y: Any,
        *,
        ids: Sequence[Hashable] | np.ndarray | None = None,
        classes: Sequence[str] | None = None,
        name: str = "data",
        scale: Scale | None = None,
        texts: Sequence[str] | None = None,
        vocabulary: Sequence[str] | None = None,
        hash_inputs: bool = True,
    ) -> None:
        self.source: Tensor | Dataset[Any] = x if isinstance(x, Dataset) else torch.as_tensor(x)
        self.y = labels(y)
        self.ids = np.arange(len(self.y)) if ids is None else id_array(ids)
        top = int(self.y.max()) if len(self.y) else -1
        self.classes = tuple(map(str, classes if classes is not None else range(top + 1)))
        self.name = name
        self.texts = None if texts is None else tuple(texts)
        self.vocabulary = None if vocabulary is None else tuple(vocabulary)
        raise_if(self._problems(top))
        if scale is None and isinstance(self.source, Tensor) and self.source.dtype == torch.uint8:
            scale = Scale.of(self.source)
        self.scale = scale
        self.hash_inputs = hash_inputs

    def _problems(self, top: int) -> list[str]:
        found = []
        n = len(self.source)  # type: ignore[arg-type]
        if not n:
            found.append(f"{self.name} has no rows.")
        if n != len(self.y) or len(self.ids) != len(self.y):
            found.append(f"{self.name} has {n} inputs, {len(self.y)} labels and {len(self.ids)} ids; they must agree.")
        if self.texts is not None and len(self.texts) != len(self.y):
            found.append(f"{self.name} has {len(self.texts)} texts and {len(self.y)} labels; they must agree.")
        if top >= len(self.classes):
            found.append(
                f"{self.name} has label {top}, but only {len(self.classes)} class names: 0..{len(self.classes) - 1}."
            )
        if twice := [c for c, count in Counter(self.classes).items() if count > 1]:
            found.append(f"{self.name} has several classes named {', '.join(twice)}; each needs a name of its own.")
        if len(np.unique(self.ids)) != len(self.ids):
            found.append(f"{self.name} uses an id twice; ids name rows, so each must be its own.")
        if isinstance(self.source, Tensor):
            if self.source.dtype == torch.uint8 and self.source.ndim != 4:
                found.append(
                    f"{self.name}: uint8 images must have shape (N, channels, height, width), "
                    f"got {tuple(self.source.shape)}."
                )
            if self.source.is_floating_point() and not torch.isfinite(self.source).all():
                bad = (~torch.isfinite(self.source.reshape(len(self.source), -1))).any(1).nonzero().flatten()
                found.append(
                    f"{self.name}: {len(bad)} rows hold NaN or infinity, the first at position {int(bad[0])}; "
                    "clean or drop them first."
                )
        return found

    def __len__(self) -> int:
        return len(self.y)

    def __repr__(self) -> str:
        return f"Rows({self.name!r}, {len(self):,} rows of shape {self.shape}, {len(self.classes)} classes)"

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.classes)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """The shape of one input, e.g. (1, 28, 28)."""
        return tuple(self.x(torch.tensor([0])).shape[1:])

    def x(self, index_B: Tensor | Sequence[int] | int) -> Tensor:
        """The model inputs at these positions: (B, ...), float32 for images, int64 for tokens; not augmented."""
        index_B = index_B if isinstance(index_B, Tensor) else positions(index_B, len(self))
        if isinstance(self.source, Tensor):
            x_B = self.source[index_B.to(self.source.device)]
        else:
            x_B = torch.stack([self._item(int(i)) for i in index_B])
        if self.scale is not None:
            return self.scale(x_B)
        return x_B.float() if x_B.is_floating_point() else x_B

    def _item(self, i: int) -> Tensor:
        try:
            return torch.as_tensor(self.source[i][0])
        except (IndexError, ExpungeError):  # the end, for those who iterate; or told already
            raise
        except Exception as error:  # a user's dataset may raise anything
            raise ExpungeError(
                f"{self.name}: the row of id {plain(self.ids[i])!r} cannot be read: {error}. If it is gone, leave it "
                "out, or take a method that reads no row that must go, such as unsir."
            ) from error

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        return self.__getitems__([i])[0]

    def __getitems__(self, index: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        """Many examples by one index select; PyTorch's DataLoader calls this when it is there."""
        index_B = torch.as_tensor(index)
        return list(zip(self.x(index_B), self.y[index_B]))

    def positions(self, ids: Iterable[Hashable]) -> Tensor:
        """The positions, (number of ids,) int64, of the rows with these ids, in the order given.

        Raises:
            ExpungeError: an id that no row has (the first few are named).
        """
        ids = list(ids)
        if any(isinstance(i, (bool, np.bool_)) for i in ids):
            raise ExpungeError("These are true and false, not ids; for a mask over the rows give rows.ids[mask].")
        where = self._position_of
        missing = [i for i in ids if plain(i) not in where]
        if missing:
            sample = ", ".join(repr(plain(i)) for i in missing[:5])
            raise ExpungeError(
                f"{len(missing)} of {len(ids)} ids are not in {self.name}, e.g. {sample}. "
                f"Its ids look like {', '.join(repr(plain(i)) for i in self.ids[:3])}."
            )
        return torch.tensor([where[plain(i)] for i in ids], dtype=torch.long)

    @cached_property
    def _position_of(self) -> dict[Any, int]:
        return {plain(i): k for k, i in enumerate(self.ids)}

    def take(self, index: Tensor | Sequence[int] | int, name: str | None = None) -> Rows:
        """The rows at these positions, or where a mask says so, as rows of their own; ids, classes and scale stay.

        Raises:
            ExpungeError: something else than positions, or positions that no row has.
        """
        index = positions(index, len(self))
        other = object.__new__(Rows)
        source = self.source[index] if isinstance(self.source, Tensor) else _Part(self.source, index)
        other.source, other.y, other.ids = source, self.y[index], self.ids[index.numpy()]
        other.classes, other.name, other.scale = self.classes, name or self.name, self.scale
        other.texts = None if self.texts is None else tuple(self.texts[i] for i in index.tolist())
        other.vocabulary, other.hash_inputs = self.vocabulary, self.hash_inputs
        return other

    def on(self, device: torch.device) -> Rows:
        """These rows with inputs and labels held on a device; themselves where they are there already."""
        if not isinstance(self.source, Tensor) or self.source.device == device:
            return self
        there = self.take(torch.arange(len(self)))
        there.source, there.y = self.source.to(device), self.y.to(device)
        return there

    @cached_property
    def hash(self) -> str:
        """A blake2b digest of inputs, labels, ids and scale: two datasets with one hash train the same models.

        A dataset that is read item by item contributes its labels, ids and sixteen rows spread over it; without
        `hash_inputs` only labels and ids count.

        Raises:
            ExpungeError: one of the sixteen rows cannot be read.
        """
        digest = hashlib.blake2b(digest_size=16)
        if self.hash_inputs and isinstance(self.source, Tensor):
            digest.update(str((self.source.dtype, tuple(self.source.shape))).encode())
            digest.update(self.source.detach().cpu().contiguous().view(torch.uint8).numpy().data)  # bfloat16 as well
        elif self.hash_inputs:
            spread = torch.linspace(0, len(self) - 1, min(16, len(self)), dtype=torch.float64).long()
            digest.update(self._read(spread).numpy().tobytes())
        digest.update(self.y.cpu().numpy().tobytes())
        digest.update(repr(self.ids.tolist()).encode())
        digest.update(repr((self.classes, None if self.scale is None else (self.scale.mean, self.scale.std))).encode())
        return digest.hexdigest()

    @cached_property
    def input_hashes(self) -> list[bytes]:
        """A digest of each input as it is stored; none of them where inputs may not be read, or are read one by one."""
        return digest_each(self.source) if self.hash_inputs and isinstance(self.source, Tensor) else []

    def _read(self, index_B: Tensor) -> Tensor:
        try:
            return self.x(index_B)
        except (ExpungeError, IndexError) as error:
            raise ExpungeError(
                f"{self.name}: not every row can be read, and sixteen are for its digest: {error} If rows of it may "
                "not be read, give Rows(dataset, labels, hash_inputs=False)."
            ) from error

    def scaled_like(self, other: Rows) -> Rows:
        """These rows with the scale of `other`: unseen data is scaled as the training data was."""
        same = self.take(torch.arange(len(self)))
        same.scale = other.scale
        return same


class _Part(Dataset[Any]):
    """Some positions of a dataset that is read item by item."""

    def __init__(self, whole: Dataset[Any], index: Tensor) -> None:
        self.whole, self.index = whole, index

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, i: int) -> Any:
        return self.whole[int(self.index[i])]
