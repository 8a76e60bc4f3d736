"""A folder of images: train/ and test/ (or val/) with a folder for each class, or only the class folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from expunge.data.images import SUFFIXES, opened, stack
from expunge.data.pair import pair
from expunge.data.rows import Rows
from expunge.data.split import train_test
from expunge.errors import ExpungeError

TEST = ("test", "val", "valid", "validation")


def read(root: Path, seed: int = 0) -> tuple[Rows, Rows]:
    """Training and test rows; ids are paths relative to `root`, classes the folder names, alphabetical.

    All images are held in memory, one byte a channel.

    Args:
        root: the folder.
        seed: of the stratified 80/20 split, where there is no train/ folder.

    Raises:
        ExpungeError: no images, images of two sizes, a class without a training image, a test class that is not a
            training class.
        MissingExtra: Pillow is not installed.
    """
    name = root.resolve().name
    tests = [root / t for t in TEST if (root / t).is_dir()]
    if tests and not (root / "train").is_dir():
        raise ExpungeError(f"{root} has a folder {tests[0].name}, but none called train beside it.")
    if not (root / "train").is_dir():
        files, y_N, classes = _listed(root)
        x_N = stack(opened(files))
        ids = _ids(root, files)
        train, test = (index.numpy() for index in train_test(y_N, seed))
        return pair(
            name,
            (x_N[train], y_N[train]),
            (x_N[test], y_N[test]),
            classes=classes,
            ids=(ids[train], ids[test]),
        )
    if not tests:
        raise ExpungeError(f"{root} has a folder train, but none of {', '.join(TEST)} beside it.")
    train_files, y_train, classes = _listed(root / "train")
    test_files, y_test, _ = _listed(tests[0], classes)
    both = stack(opened(train_files + test_files))  # together, so that sizes and colours agree
    n = len(train_files)
    return pair(
        name,
        (both[:n], y_train),
        (both[n:], y_test),
        classes=classes,
        ids=(_ids(root, train_files), _ids(root, test_files)),
    )


def _listed(folder: Path, classes: list[str] | None = None) -> tuple[list[Path], np.ndarray, list[str]]:
    """Image files in alphabetical order, their labels, and the classes."""
    files: dict[str, list[Path]] = {}
    empty: list[str] = []
    for sub in sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")):
        inside = sorted(p for p in sub.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        if inside:
            files[sub.name] = inside
        else:
            empty.append(sub.name)
    if not files:
        raise ExpungeError(
            f"{folder} has no images in class folders; expected {folder.name}/CLASS/IMAGE with one of "
            f"{', '.join(sorted(SUFFIXES))}."
        )
    if empty and classes is None:
        raise ExpungeError(
            f"{folder} has no image in {', '.join(empty)}, so there would be no such class. Put images there "
            f"({', '.join(sorted(SUFFIXES))}), or take the folder away."
        )
    classes = list(files) if classes is None else classes
    unknown = sorted(set(files) - set(classes))
    if unknown:
        raise ExpungeError(
            f"{folder} has classes that the training images lack: {', '.join(unknown)}. "
            f"Training classes: {', '.join(classes)}."
        )
    labels = [classes.index(c) for c, inside in files.items() for _ in inside]
    return [p for inside in files.values() for p in inside], np.array(labels), classes


def _ids(root: Path, files: list[Path]) -> np.ndarray:
    return np.array([p.relative_to(root).as_posix() for p in files])
