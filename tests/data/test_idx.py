"""IDX files written byte by byte."""

from __future__ import annotations

import gzip
import struct

import numpy as np
import pytest

from expunge.data import load
from expunge.data.idx import FILES
from expunge.errors import ExpungeError


def idx(array: np.ndarray) -> bytes:
    head = bytes([0, 0, 8, array.ndim]) + b"".join(struct.pack(">I", n) for n in array.shape)
    return head + array.astype(np.uint8).tobytes()


def contents(digits) -> dict[str, bytes]:
    x, y = digits
    return dict(zip(FILES, map(idx, (x[:90], y[:90], x[90:120], y[90:120]))))


@pytest.mark.parametrize("form", ["plain", "gz", "dotted"])
def test_equals_the_arrays(tmp_path, digits, form):
    for name, content in contents(digits).items():
        if form == "gz":
            (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            name = name.replace("-idx", ".idx") if form == "dotted" else name
            (tmp_path / name).write_bytes(content)
    train, test = load(tmp_path)
    np.testing.assert_array_equal(train.source[:, 0].numpy(), digits[0][:90])
    np.testing.assert_array_equal(test.source[:, 0].numpy(), digits[0][90:120])
    assert train.y.tolist() == digits[1][:90].tolist()
    assert test.y.tolist() == digits[1][90:120].tolist()
    assert test.scale == train.scale


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (0, lambda b: b[:-5], r"shape \(90, 8, 8\), 5,760 bytes, but holds 5,755"),
        (1, lambda b: b + b"x", "90 bytes, but holds 91"),
        (2, lambda b: b"\x00\x00\x0d" + b[3:], "starts with 00 00 0d 03"),
        (3, lambda b: b"", "starts with ; IDX"),
        (3, lambda b: b[:6], "IDX files"),
        (3, None, "lacks t10k-labels-idx1-ubyte"),
    ],
)
def test_broken_files(tmp_path, digits, file, change, message):
    for name, content in contents(digits).items():
        if name != FILES[file]:
            (tmp_path / name).write_bytes(content)
        elif change is not None:
            (tmp_path / name).write_bytes(change(content))
    with pytest.raises(ExpungeError, match=message):
        load(tmp_path)


def test_broken_gzip(tmp_path, digits):
    for name, content in contents(digits).items():
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content)[:-20])
    with pytest.raises(ExpungeError, match="cannot be read"):
        load(tmp_path)
