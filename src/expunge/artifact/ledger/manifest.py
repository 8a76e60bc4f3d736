"""Manifest: what a ledger is about, in `ledger.json`, and the labels of its rows, where known, in `rows.json`.

Each file holds a digest of the rest of itself. One without, from before there were digests, is read as it is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from torch import Tensor, nn
from torch.optim import Optimizer

from expunge import io
from expunge.artifact.ledger.ids import Id
from expunge.artifact.ledger.settings import Settings
from expunge.data.classes import label
from expunge.data.ids import number
from expunge.errors import ExpungeError, UnknownName, collected, raise_if

FORMAT = 1
NAME = "ledger.json"
ROWS = "rows.json"
START = "start.safetensors"  # the first weights of the training
HELD = ("settings", "layers", "buffers", "optimizer", "data", "recipe")

About = dict[str, Any]


def read(folder: Path) -> About | None:
    """What the ledger in a folder is about; none where there is no ledger.

    Raises:
        ExpungeError: a damaged file, or one of another format.
    """
    if not (folder / NAME).is_file():
        return None
    about = _whole(folder / NAME)
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        found = about.get("format") if isinstance(about, dict) else None
        raise ExpungeError(f"{folder / NAME} has format {found!r}; this expunge reads format {FORMAT}.")
    if lacking := [key for key in HELD if key not in about]:
        raise ExpungeError(f"{folder / NAME} is damaged: it lacks {', '.join(lacking)}.")
    return about


def _whole(path: Path) -> Any:
    """The data of a file that holds a digest of itself."""
    data = io.read_json(path)
    if isinstance(data, dict) and "digest" in data and data["digest"] != _digest(data):
        raise ExpungeError(
            f"{path} is damaged, or was changed by hand: it does not match the digest that was written with it. Bring "
            "it back from a copy."
        )
    return data


def _digest(data: About) -> str:
    """Of everything but the digest itself."""
    rest = {key: value for key, value in data.items() if key != "digest"}
    return hashlib.blake2b(json.dumps(rest, sort_keys=True).encode(), digest_size=16).hexdigest()


def start_problems(folder: Path, digest: str | None) -> list[str]:
    """What is wrong with the file of the first weights; without a digest, whether it can be read at all.

    Args:
        folder: of the ledger.
        digest: of the file, when it was written.
    """
    path, found = folder / START, list[str]()
    if digest is None:
        with collected(found):
            io.read_tensors(path)
    elif not path.is_file():
        found.append(f"{path}, the first weights of the training, is missing.")
    elif io.file_digest(path) != digest:
        found.append(f"{path} is damaged: these are not the first weights of the training.")
    return found


def missing(folder: Path) -> NoReturn:
    """Say that there is no ledger in a folder."""
    raise ExpungeError(
        f"There is no ledger in {folder}: it has no {NAME}. A ledger is made while a model is trained, by "
        "ledger.watch(model, optimizer) or recipe: {ledger: {keep: 0.1}}."
    )


def make(
    settings: Settings,
    layers: Mapping[str, nn.Parameter],
    buffers: Mapping[str, Tensor],
    optimizer: Optimizer,
    data: str | None,
    recipe: Any,
) -> About:
    """What a new ledger is about."""
    return {
        "format": FORMAT,
        "settings": settings.plain(),
        "layers": [[name, list(p.shape), str(p.dtype)] for name, p in layers.items()],
        "buffers": [[n, list(b.shape), str(b.dtype)] for n, b in buffers.items()]
        if settings.buffers == "subtract"
        else [],
        "optimizer": type(optimizer).__name__,
        "optimizer_state": "not recorded; to be dropped after a deletion, as it remembers the rows",
        "data": data,
        "recipe": io.plain(recipe),
    }


def write(folder: Path, about: About) -> None:
    """Make a ledger's folder."""
    io.write_json(folder / NAME, {**about, "digest": _digest(about)})


def check_same(folder: Path, about: About, settings: Mapping[str, Any], data: str | None, recipe: Any) -> None:
    """Refuse settings, data or a training other than those of the ledger in a folder.

    Raises:
        ExpungeError: all differences.
    """
    theirs = about["settings"]
    problems = [str(UnknownName("setting of ledger", n, theirs)) for n in settings if n not in theirs]
    raise_if(problems)
    asked = Settings.recorded({**theirs, **settings}).plain()
    for name in settings:
        if theirs[name] != (value := asked[name]):
            problems.append(f"The ledger {folder} has {name}: {theirs[name]!r}, not {value!r}; give another folder.")
    for what, given in (("data", data), ("recipe", io.plain(recipe))):
        if given is not None and about[what] is not None and about[what] != given:
            detail = (
                _difference(about[what], given) if isinstance(given, dict) else f"{about[what]} there, {given} here"
            )
            problems.append(f"The ledger {folder} belongs to another {what}: {detail}.")
    raise_if(problems)


def _difference(theirs: Any, ours: Mapping[str, Any]) -> str:
    keys = [k for k in {*theirs, *ours} if theirs.get(k) != ours.get(k)]
    return ", ".join(f"{k} {theirs.get(k)!r} there, {ours.get(k)!r} here" for k in sorted(keys))


def check_layers(folder: Path, about: About, layers: Mapping[str, Tensor], others: bool = True) -> None:
    """Refuse a model whose recorded layers are others; it may have more where `others` are allowed.

    Raises:
        ExpungeError: the first differences.
    """
    theirs = {name: (tuple(shape), dtype) for name, shape, dtype in about["layers"]}
    ours = {name: (tuple(p.shape), str(p.dtype)) for name, p in layers.items()}
    odd = [n for n in (theirs if others else {**theirs, **ours}) if theirs.get(n) != ours.get(n)]
    if odd:
        told = "; ".join(
            f"{n}: {theirs.get(n, 'not there')} in the ledger, {ours.get(n, 'not there')}" for n in odd[:3]
        )
        raise ExpungeError(f"The ledger {folder} belongs to another model ({told} in this one).")


def write_rows(folder: Path, ids: Iterable[Hashable], labels: Iterable[int], classes: Iterable[str]) -> None:
    """Keep the labels of all rows, so that a request by class can be weighed without the data."""
    rows = {"classes": list(classes), "ids": list(ids), "labels": list(labels)}
    io.write_json(folder / ROWS, {**rows, "digest": _digest(rows)})


def without_ids(folder: Path, ids: Iterable[Id]) -> About | None:
    """Take rows out of the list of sensitive ones, which may end up empty; returns what the ledger is about then."""
    about, gone = read(folder), set(ids)
    if about is not None and (sensitive := about["settings"]["sensitive"]):
        about["settings"]["sensitive"] = [i for i in sensitive if gone.isdisjoint((i, number(i)))]
        write(folder, about)
    return about


def count_rows(folder: Path) -> int | None:
    """How many rows the training had; none where nobody said."""
    return len(_whole(folder / ROWS)["ids"]) if (folder / ROWS).is_file() else None


def of_classes(folder: Path, wanted: Iterable[int | str]) -> list[Hashable]:
    """The ids of all rows of some classes, by label or name.

    Raises:
        ExpungeError: the labels are not known, or there is no such class.
    """
    if not (folder / ROWS).is_file():
        raise ExpungeError(f"The ledger {folder} does not know the labels of its rows; give ids instead of classes.")
    rows = _whole(folder / ROWS)
    wanted_labels = {label(one, rows["classes"]) for one in wanted}
    return [i for i, y in zip(rows["ids"], rows["labels"]) if y in wanted_labels]


def drop_rows(folder: Path, ids: Iterable[Hashable]) -> None:
    """Take rows out of the list of labels."""
    if (folder / ROWS).is_file():
        rows, gone = _whole(folder / ROWS), set(ids)
        left = [(i, y) for i, y in zip(rows["ids"], rows["labels"]) if i not in gone]
        write_rows(folder, [i for i, _ in left], [y for _, y in left], rows["classes"])
