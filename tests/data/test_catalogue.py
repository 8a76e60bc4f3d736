"""What `available` says against what `load` gives."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest

from expunge.data import load, names
from expunge.data.catalogue import available


@pytest.fixture
def filled(data_folder, digits):
    x, y = digits
    rgb = np.stack([x] * 3, -1)
    tokens = np.arange(40).reshape(20, 2)
    for name, inputs in {
        "gray": x,
        "colour": rgb,
        "floats": x.reshape(-1, 64) / 16,
        "tokens": tokens,
    }.items():
        parts = {"x_train": inputs[:12], "y_train": y[:12], "x_test": inputs[12:20], "y_test": y[12:20]}
        np.savez_compressed(data_folder / f"{name}.npz", **parts)
    (data_folder / "gray.json").write_text(json.dumps({"classes": list("abcdefghij"), "source": "somewhere"}))
    with gzip.open(data_folder / "words.jsonl.gz", "wt") as file:
        file.writelines(json.dumps({"split": s, "label": 0, "text": s}) + "\n" for s in ("train", "test"))
    return data_folder


def test_records_agree_with_loading(filled):
    records = {r["name"]: r for r in available()}
    assert list(records) == names() == ["colour", "digits", "floats", "gray", "tokens", "words"]
    for name, record in records.items():
        train, test = load(name)
        assert record["problem"] == ""
        if name != "words":
            assert (record["train"], record["test"], record["shape"]) == (len(train), len(test), train.shape)
        assert record["classes"] is None or tuple(record["classes"]) == train.classes
    assert [r["kind"] for r in records.values()] == [
        "images",
        "images",
        "features",
        "images",
        "tokens",
        "text",
    ]
    assert (records["gray"]["source"], records["gray"]["where"]) == ("somewhere", str(filled / "gray.npz"))
    assert records["digits"]["where"] == "built in"


def test_what_cannot_be_loaded_says_why(data_folder):
    (data_folder / "broken.npz").write_text("no zip")
    np.savez(data_folder / "half.npz", x_train=np.zeros(3))
    np.savez(data_folder / "single.npz", x_train=np.array(3), y_train=[1], x_test=[1], y_test=[1])
    problems = {r["name"]: r["problem"] for r in available()}
    assert {r["kind"] for r in available() if r["name"] != "digits"} == {"unknown"}
    assert "x_train hold a single value" in problems["single"]
    assert problems["digits"] == ""
    assert "not a readable npz" in problems["broken"]
    assert "lacks y_train, x_test, y_test" in problems["half"]


def test_arrays_are_not_read(data_folder, digits):
    """Only the headers matter: values that are cut off later do not."""
    x, y = digits
    path = data_folder / "mine.npz"
    np.savez(path, x_train=x, y_train=y, x_test=x, y_test=y)
    content = bytearray(path.read_bytes())
    content[5000] ^= 255  # a pixel of x_train: reading the array would fail on the checksum
    path.write_bytes(content)
    record = next(r for r in available() if r["name"] == "mine")
    assert (record["train"], record["shape"], record["problem"]) == (1797, (1, 8, 8), "")


def test_without_a_folder_there_are_digits(monkeypatch):
    monkeypatch.delenv("EXPUNGE_DATA", raising=False)
    assert names() == ["digits"]
