"""Datasets of the Hugging Face library `datasets`: by name, saved to disk, or as an object the user has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from expunge.data.images import is_image, stack
from expunge.data.layout import inputs
from expunge.data.pair import pair
from expunge.data.rows import Rows
from expunge.data.split import train_test
from expunge.data.text import encode, length_of, tokenised, vocabulary_of, words_of
from expunge.errors import ExpungeError, MissingExtra

TEST = ("test", "validation", "valid", "val", "dev")
LABELS = ("label", "labels", "target", "y", "fine_label")
INPUTS = ("image", "img", "text", "sentence", "x", "input", "pixel_values", "features")


def is_saved(folder: Path) -> bool:
    """Whether the folder was written by `save_to_disk`."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def read(place: str | Path, seed: int = 0) -> tuple[Rows, Rows]:
    """Training and test rows; ids are those of a column `id`, else the positions in the split.

    Args:
        place: the folder of a saved dataset, or `NAME` or `NAME:CONFIGURATION` as `load_dataset` takes them.
        seed: of the stratified 80/20 split, where there is no test split.

    Raises:
        ExpungeError: it cannot be loaded, has no split "train", or no columns that can be inputs and labels.
        MissingExtra: `datasets` is not installed.
    """
    try:
        import datasets
    except ImportError:
        raise MissingExtra("datasets", "text", f"Reading {place}") from None
    try:
        if isinstance(place, Path):
            name, data = place.resolve().name, datasets.load_from_disk(str(place))
        else:
            name, _, configuration = place.partition(":")
            data = datasets.load_dataset(name, configuration or None)
    except Exception as problem:  # the library raises many kinds, most of them about files and the network
        raise ExpungeError(f"datasets cannot load {str(place)!r}: {problem}") from problem
    if not isinstance(data, dict):
        data = {"train": data}
    if "train" not in data:
        raise ExpungeError(f"{place} has the splits {', '.join(data)}; one must be called train.")
    test = next((data[split] for split in TEST if split in data), None)
    return _split_in_two(name, data["train"], seed) if test is None else _joined(name, data["train"], test)


def rows(data: Any, *, ids: Any = None, classes: Sequence[str] | None = None, name: str | None = None) -> Rows:
    """One `datasets.Dataset` as rows, read once into memory.

    Raises:
        ExpungeError: no columns that can be inputs and labels, or a transformation set on the dataset.
    """
    name = name or "data"
    x, y, own_ids, own_classes = _columns(data, name)
    ids, classes = own_ids if ids is None else ids, own_classes if classes is None else classes
    if isinstance(x, list):
        words = [words_of(text) for text in x]
        vocabulary = vocabulary_of(words)
        x_NL = encode(words, vocabulary, length_of(words))
        return Rows(x_NL, y, ids=ids, classes=classes, name=name, texts=x, vocabulary=vocabulary)
    return Rows(inputs(x, name), y, ids=ids, classes=classes, name=name)


def _joined(name: str, train: Any, test: Any) -> tuple[Rows, Rows]:
    x_train, y_train, ids_train, classes = _columns(train, name)
    x_test, y_test, ids_test, _ = _columns(test, f"{name} test")
    make = tokenised if isinstance(x_train, list) else pair
    return make(name, (x_train, y_train), (x_test, y_test), classes=classes, ids=(ids_train, ids_test))


def _split_in_two(name: str, data: Any, seed: int) -> tuple[Rows, Rows]:
    x, y, ids, classes = _columns(data, name)
    ids = np.arange(len(y)) if ids is None else ids
    first, second = (index.numpy() for index in train_test(y, seed))
    texts = np.array(x, dtype=object) if isinstance(x, list) else x
    train, test = ((texts[i].tolist() if isinstance(x, list) else x[i], y[i]) for i in (first, second))
    make = tokenised if isinstance(x, list) else pair
    return make(name, train, test, classes=classes, ids=(ids[first], ids[second]))


def _columns(data: Any, name: str) -> tuple[Any, Any, Any, Any]:
    """Inputs (texts as a list, else an array), labels, ids or None, class names or None."""
    if getattr(data, "format", {}).get("type") == "custom":
        raise ExpungeError(
            f"{name} has a transformation set on it, which may differ at every reading; reset_format(), or "
            "wrap it in a torch Dataset that returns (input, label)."
        )
    columns = list(data.column_names)
    label = _choose(columns, LABELS, name, "labels")
    source = _choose([c for c in columns if c not in (label, "id")], INPUTS, name, "inputs")
    y = np.asarray(data.select_columns([label]).with_format("numpy")[:][label])
    if y.dtype.kind not in "iu":
        raise ExpungeError(
            f"{name}: the column {label!r} holds {y.dtype}, not integers; class_encode_column({label!r}) numbers them."
        )
    ids = np.asarray(data.select_columns(["id"]).with_format(None)[:]["id"]) if "id" in columns else None
    classes = getattr(data.features[label], "names", None)
    alone = data.select_columns([source])
    first = alone.with_format(None)[0][source] if len(alone) else None
    if isinstance(first, str):
        return [row[source] for row in alone.with_format(None)], y, ids, classes
    if is_image(first):
        images = ((f"{name}[{i}]", row[source]) for i, row in enumerate(alone.with_format(None)))
        return stack(images), y, ids, classes
    return np.asarray(alone.with_format("numpy")[:][source]), y, ids, classes


def _choose(columns: list[str], wanted: Sequence[str], name: str, kind: str) -> str:
    named = [c for c in wanted if c in columns]
    if named:
        return named[0]
    if kind == "inputs" and len(columns) == 1:
        return columns[0]
    raise ExpungeError(
        f"{name}: none of the columns {', '.join(columns) or '(none)'} is known to hold the {kind}; "
        f"rename_column one of them to {wanted[0]!r}."
    )
