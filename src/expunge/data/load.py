"""From a name or a path to training and test rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from expunge.data import catalogue, digits, folder, hugging_face, idx, npz, text
from expunge.data.limit import class_limited, limited
from expunge.data.rows import Rows
from expunge.data.split import check_seed
from expunge.errors import ExpungeError, UnknownName


def load(
    name_or_path: str | Path,
    limit: int | None = None,
    seed: int = 0,
    class_limit: Mapping[int | str, int] | None = None,
) -> tuple[Rows, Rows]:
    """Training and test rows of a named dataset, a file, or a folder.

    Tried in this order: `"digits"` (built in); `"hf:NAME"` or `"hf:NAME:CONFIGURATION"` through the library
    `datasets`; `NAME.npz` or `NAME.jsonl.gz` in the folder that the environment variable EXPUNGE_DATA names;
    a path to an `.npz` or `.jsonl.gz` file, or to a folder with the IDX files of MNIST, a dataset saved by
    `datasets`, or images by class.

    Uint8 images of both sets are scaled by mean and deviation of the whole training set, whatever the limit.

    Args:
        name_or_path: what to load.
        limit: a stratified random part of the training rows, at most this many, at least one for each class;
            they keep their ids. The test rows are never limited. Default: all.
        seed: of these draws, and of the 80/20 split of data that comes unsplit; digits are always split alike.
        class_limit: for single classes, by label or name, how many of their training rows stay at most, 1 or more;
            a random part of those that `limit` left. Default: all.

    Raises:
        UnknownName: nothing has this name.
        ExpungeError: the data cannot be read as it is (what was found and expected is said), `seed` is none, `limit` is
            less than the number of classes, or `class_limit` names a class that is not there or leaves it no row.
        MissingExtra: a format needs a library that is not installed.
    """
    check_seed(seed)
    train, test = _read(name_or_path, seed)
    return class_limited(limited(train, limit, seed), class_limit, seed), test


def _read(place: str | Path, seed: int) -> tuple[Rows, Rows]:
    if isinstance(place, str):
        if place == "digits":
            return digits.read()
        if place.startswith("hf:"):
            return hugging_face.read(place[3:], seed)
        found = catalogue.find(place)
        if found is not None:
            return _read_path(found, seed)
    path = Path(place).expanduser()
    if not str(place) or not path.exists():
        raise UnknownName("dataset", place, catalogue.names(), _hint())
    return _read_path(path, seed)


def _read_path(path: Path, seed: int) -> tuple[Rows, Rows]:
    if path.is_dir():
        if idx.is_idx(path):
            return idx.read(path)
        if hugging_face.is_saved(path):
            return hugging_face.read(path, seed)
        return folder.read(path, seed)
    if path.name.endswith(".npz"):
        return npz.read(path)
    if path.name.endswith(".jsonl.gz"):
        return text.read(path)
    raise ExpungeError(
        f"{path} is neither an .npz nor a .jsonl.gz file; "
        "other data can be given as a torch Dataset or a pair of arrays (x, y)."
    )


def _hint() -> str:
    at = catalogue.data_folder()
    if at is None:
        where = f"{catalogue.VARIABLE} is not set; set it to a folder with NAME.npz or NAME.jsonl.gz files."
    elif not at.is_dir():
        where = f"{catalogue.VARIABLE} is {at}, which is not a folder."
    else:
        where = f"More names come from NAME.npz or NAME.jsonl.gz files in {catalogue.VARIABLE}={at}."
    return f"{where} A path to a file or folder works too."
