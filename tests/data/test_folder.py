"""Folders of images written by Pillow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from expunge.data import load
from expunge.errors import ExpungeError


def write(folder: Path, digits, chosen: range) -> dict[str, np.ndarray]:
    """One PNG a digit in a folder for each class; the pixels by path relative to the root."""
    written = {}
    for i in chosen:
        path = folder / f"class {digits[1][i]}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(digits[0][i]).save(path)
        written[path.as_posix()] = digits[0][i]
    return written


@pytest.mark.parametrize("held_out", ["test", "val"])
def test_train_and_test_folders(tmp_path, digits, held_out):
    written = write(tmp_path / "train", digits, range(60)) | write(tmp_path / held_out, digits, range(60, 80))
    train, test = load(tmp_path)
    assert (len(train), len(test)) == (60, 20)
    assert train.classes == test.classes == tuple(f"class {c}" for c in range(10))
    for rows in (train, test):
        for i, path in enumerate(rows.ids):
            np.testing.assert_array_equal(rows.source[i, 0].numpy(), written[f"{tmp_path.as_posix()}/{path}"])
            assert path.split("/")[1] == rows.classes[rows.y[i]]
    assert all(path.startswith(f"{held_out}/") for path in test.ids)


def test_class_folders_alone_are_split_by_the_seed(tmp_path, digits):
    written = write(tmp_path, digits, range(100))
    train, test = load(tmp_path, seed=1)
    assert (len(train), len(test)) == (80, 20)
    assert {f"{tmp_path.as_posix()}/{path}" for path in [*train.ids, *test.ids]} == set(written)
    quota = 80 * np.bincount(digits[1][:100]) / 100
    assert np.abs(np.bincount(train.y) - quota).max() < 1
    assert load(tmp_path, seed=1)[0].hash == train.hash
    assert set(load(tmp_path, seed=2)[0].ids) != set(train.ids)


def test_one_colour_image_makes_all_colour(tmp_path):
    gray = np.arange(12, dtype=np.uint8).reshape(3, 4)
    colour = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)
    alpha = np.dstack([colour, np.full((3, 4), 9, np.uint8)])
    for name, image in {"train/a/1": gray, "train/b/2": colour, "test/a/3": alpha, "test/b/4": gray}.items():
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    train, test = load(tmp_path)
    np.testing.assert_array_equal(train.source[0].numpy(), np.stack([gray] * 3))
    np.testing.assert_array_equal(train.source[1].numpy(), colour.transpose(2, 0, 1))
    np.testing.assert_array_equal(test.source[0].numpy(), colour.transpose(2, 0, 1))


def test_two_sizes_are_both_named(tmp_path, digits):
    write(tmp_path, digits, range(20))
    Image.new("L", (9, 7)).save(tmp_path / "class 3" / "zz.png")
    with pytest.raises(ExpungeError, match=r"is 8x8, .*zz\.png is 9x7"):
        load(tmp_path)


def test_what_is_no_image_folder(tmp_path, digits):
    with pytest.raises(ExpungeError, match="no images in class folders"):
        load(tmp_path)
    write(tmp_path / "train", digits, range(20))
    with pytest.raises(ExpungeError, match="none of test, val"):
        load(tmp_path)
    write(tmp_path / "test", digits, range(20))
    (tmp_path / "test" / "class 3").rename(tmp_path / "test" / "class X")
    with pytest.raises(ExpungeError, match="training images lack: class X"):
        load(tmp_path)
    (tmp_path / "train").rename(tmp_path / "elsewhere")
    with pytest.raises(ExpungeError, match="none called train"):
        load(tmp_path)


@pytest.mark.parametrize("inside", [(), ("notes.txt", "scan.dcm")])
def test_a_class_folder_without_images_is_named(tmp_path, digits, inside):
    """It would be no class, and the labels of those after it would be others."""
    for root, part in ((tmp_path / "alone", "."), (tmp_path / "parts", "train")):
        write(root / part, digits, range(20))
        if part == "train":
            write(root / "test", digits, range(20, 40))
        (root / part / "class 35").mkdir()
        for name in inside:
            (root / part / "class 35" / name).write_bytes(b"x")
        (root / part / ".cache").mkdir()
        with pytest.raises(ExpungeError, match=r"has no image in class 35, so .*\.png.* or take the folder away"):
            load(root)
        (root / part / "class 35").rename(root / part / ".class 35")
        assert len(load(root)[0].classes) == 10


def test_a_class_may_have_no_test_images(tmp_path, digits):
    write(tmp_path / "train", digits, range(20))
    write(tmp_path / "test", digits, range(20, 40))
    for path in (tmp_path / "test" / "class 3").iterdir():
        path.unlink()
    train, test = load(tmp_path)
    assert test.classes == train.classes == tuple(f"class {c}" for c in range(10))
    assert 3 not in test.y


def test_unreadable_and_deep_images(tmp_path, digits):
    write(tmp_path, digits, range(20))
    bad = tmp_path / "class 1" / "bad.png"
    bad.write_bytes(b"no image")
    with pytest.raises(ExpungeError, match=r"bad\.png cannot be read"):
        load(tmp_path)
    Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(bad)
    with pytest.raises(ExpungeError, match="more than eight bits"):
        load(tmp_path)
