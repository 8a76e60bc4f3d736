"""NAME.npz against NumPy, and what is wrong with broken ones."""

from __future__ import annotations

import json

import numpy as np
import pytest

from expunge.data import load
from expunge.errors import ExpungeError


def save(path, digits, **changes):
    x, y = digits
    arrays = {"x_train": x[:100], "y_train": y[:100], "x_test": x[100:150], "y_test": y[100:150]} | changes
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return path


def test_by_name_and_by_path(data_folder, digits):
    path = save(data_folder / "mine.npz", digits, x_val=digits[0][:3])
    (data_folder / "mine.json").write_text(json.dumps({"classes": [f"digit {c}" for c in range(10)]}))
    for place in ("mine", path, str(path)):
        train, test = load(place)
        np.testing.assert_array_equal(train.source[:, 0].numpy(), digits[0][:100])
        np.testing.assert_array_equal(test.source[:, 0].numpy(), digits[0][100:150])
        np.testing.assert_array_equal(train.y.numpy(), digits[1][:100])
        assert (train.name, test.name, train.classes[9]) == ("mine", "mine test", "digit 9")
        assert train.ids.tolist() == list(range(100))


def test_test_labels_add_no_classes(tmp_path, digits):
    y = np.arange(50) % 3
    path = save(tmp_path / "few.npz", digits, y_train=np.tile(y, 2), y_test=np.where(y == 0, 5, y))
    with pytest.raises(ExpungeError, match=r"few: test rows have the label 5, and training rows none above 2\."):
        load(path)
    (tmp_path / "few.json").write_text(json.dumps({"classes": list("abcdef")}))
    train, test = load(path)
    assert train.classes == test.classes == tuple("abcdef")
    assert test.y[0] == 5


def test_colour_images_and_their_scale(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (20, 6, 5, 3), dtype=np.uint8)
    np.savez_compressed(tmp_path / "c.npz", x_train=x[:12], y_train=np.arange(12), x_test=x[12:], y_test=np.arange(8))
    train, test = load(tmp_path / "c.npz")
    np.testing.assert_array_equal(train.source.numpy(), x[:12].transpose(0, 3, 1, 2))
    np.testing.assert_allclose(test.scale.mean, x[:12].mean((0, 1, 2)) / 255)
    assert train.classes == test.classes == tuple(map(str, range(12)))


def test_float_features(tmp_path):
    x = np.random.default_rng(0).normal(size=(10, 4))
    np.savez(tmp_path / "f.npz", x_train=x[:6], y_train=[0, 1] * 3, x_test=x[6:], y_test=[0, 1] * 2)
    train, _ = load(tmp_path / "f.npz")
    np.testing.assert_allclose(train.source.numpy(), x[:6].astype(np.float32))
    assert train.scale is None


def broken_floats():
    x = np.ones((100, 3))
    x[42, 1] = np.nan
    return x


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"y_test": None, "x_test": None},
            r"x_test is missing. y_test is missing. Expected x_train.*Found x_train uint8",
        ),
        ({"y_train": np.zeros(99, int)}, r"\(100, 8, 8\) and \(99,\)"),
        ({"y_train": np.zeros((100, 1), int)}, r"\(100, 8, 8\) and \(100, 1\)"),
        ({"x_train": np.zeros((100, 64), np.uint8)}, r"shape \(100, 64\) are not images"),
        ({"x_test": np.zeros((50, 9, 8), np.uint8)}, r"\(1, 8, 8\), test inputs \(1, 9, 8\)"),
        (
            {"x_train": broken_floats(), "x_test": np.ones((50, 3))},
            "NaN or infinity, the first at position 42",
        ),
        ({"y_train": np.full(100, -1)}, "smallest is -1"),
        ({"y_train": np.full(100, 0.5)}, "must be integers"),
        ({"y_train": np.array(["cat", "dog"] * 50)}, "must be integers from 0; got <U3 values such as .*cat"),
        ({"y_test": np.array(["cat", "dog"] * 25)}, "must be integers from 0; got <U3"),
        ({"y_train": np.full(100, np.nan)}, "must be integers from 0; got float64"),
        ({"y_test": np.full(50, np.inf)}, "must be integers from 0; got float64"),
        ({"y_train": np.zeros(100, bool)}, "must be integers from 0; got bool"),
        ({"x_train": np.array([{}] * 100)}, "x_train holds Python objects"),
        ({"x_train": np.zeros((100, 3), complex)}, "complex128"),
        ({"x_train": np.zeros((0, 8, 8), np.uint8), "y_train": np.zeros(0, int)}, "no rows"),
    ],
)
def test_broken_arrays(tmp_path, digits, changes, message):
    with pytest.raises(ExpungeError, match=message):
        load(save(tmp_path / "broken.npz", digits, **changes))


def test_broken_files(tmp_path, digits):
    (tmp_path / "text.npz").write_text("no zip")
    with pytest.raises(ExpungeError, match="not a readable npz"):
        load(tmp_path / "text.npz")
    whole = save(tmp_path / "whole.npz", digits).read_bytes()
    (tmp_path / "short.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ExpungeError, match="not a readable npz"):
        load(tmp_path / "short.npz")
    flipped = bytearray(whole)
    flipped[3000] ^= 255  # inside x_train, so the checksum of the archive no longer agrees
    (tmp_path / "flipped.npz").write_bytes(flipped)
    with pytest.raises(ExpungeError, match="damaged"):
        load(tmp_path / "flipped.npz")


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ("{", "not readable JSON"),
        ("[1]", "must be an object"),
        ('{"classes": "cat"}', "must be an object"),
        ('{"classes": ["cat"]}', "label 9, but only 1"),
    ],
)
def test_broken_class_names(tmp_path, digits, card, message):
    path = save(tmp_path / "mine.npz", digits)
    (tmp_path / "mine.json").write_text(card)
    with pytest.raises(ExpungeError, match=message):
        load(path)
