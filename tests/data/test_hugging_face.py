"""Datasets of the library `datasets`, built from digits."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from expunge.data import as_rows, load
from expunge.errors import ExpungeError

datasets = pytest.importorskip("datasets")


@pytest.fixture(scope="module")
def table(digits):
    """100 digits with images, labels and ids."""
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=[f"digit {c}" for c in range(10)]),
            "id": datasets.Value("string"),
        }
    )
    columns = {
        "image": [Image.fromarray(x) for x in digits[0][:100]],
        "label": digits[1][:100].tolist(),
        "id": [f"row-{i}" for i in range(100)],
    }
    return datasets.Dataset.from_dict(columns, features=features)


def test_an_object(table, digits):
    rows = as_rows(table, name="mine")
    np.testing.assert_array_equal(rows.source[:, 0].numpy(), digits[0][:100])
    assert rows.y.tolist() == digits[1][:100].tolist()
    assert rows.ids[7] == "row-7"
    assert rows.classes[4] == "digit 4"
    assert as_rows(table, ids=range(100)).ids[7] == 7


def test_splits_saved_to_disk(table, digits, tmp_path):
    both = datasets.DatasetDict({"train": table.select(range(70)), "validation": table.select(range(70, 100))})
    both.save_to_disk(str(tmp_path / "saved"))
    train, test = load(tmp_path / "saved")
    np.testing.assert_array_equal(train.source[:, 0].numpy(), digits[0][:70])
    np.testing.assert_array_equal(test.source[:, 0].numpy(), digits[0][70:100])
    assert (train.name, train.scale) == ("saved", test.scale)
    assert load(tmp_path / "saved", limit=20)[0].ids[0].startswith("row-")


def test_one_split_saved_to_disk_is_split_by_the_seed(table, digits, tmp_path):
    table.remove_columns("id").save_to_disk(str(tmp_path / "saved"))
    train, test = load(str(tmp_path / "saved"), seed=2)
    assert (len(train), len(test)) == (80, 20)
    assert sorted([*train.ids, *test.ids]) == list(range(100))
    for rows in (train, test):
        np.testing.assert_array_equal(rows.source[:, 0].numpy(), digits[0][rows.ids])
        assert rows.y.tolist() == digits[1][rows.ids].tolist()


def test_texts(tmp_path):
    table = datasets.Dataset.from_dict({"sentence": ["a b", "b c", "b", "d", "a a"], "label": [0, 1, 0, 1, 0]})
    rows = as_rows(table)
    assert rows.vocabulary[2:] == ("a", "b", "c", "d")
    assert rows.source.tolist() == [[2, 3], [3, 4], [3, 0], [5, 0], [2, 2]]
    assert rows.texts == tuple(table["sentence"])
    table.save_to_disk(str(tmp_path / "saved"))
    train, test = load(tmp_path / "saved")
    assert {*train.texts, *test.texts} == set(table["sentence"])
    known = {word for text in train.texts for word in text.split()}
    assert set(train.vocabulary[2:]) == set(test.vocabulary[2:]) == known


def test_numbers():
    x = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    rows = as_rows(datasets.Dataset.from_dict({"features": x.tolist(), "label": [0, 1] * 3}))
    np.testing.assert_allclose(rows.source.numpy(), x, rtol=1e-6)


def test_refusals(table, tmp_path):
    with pytest.raises(ExpungeError, match="DatasetDict with train; give one"):
        as_rows(datasets.DatasetDict({"train": table}))
    with pytest.raises(ExpungeError, match="no length"):
        as_rows(table.to_iterable_dataset())
    with pytest.raises(ExpungeError, match="transformation set on it"):
        as_rows(table.with_transform(lambda batch: batch))
    with pytest.raises(ExpungeError, match="none of the columns image, id is known to hold the labels"):
        as_rows(table.remove_columns("label"))
    with pytest.raises(ExpungeError, match="class_encode_column"):
        as_rows(datasets.Dataset.from_dict({"text": ["a"], "label": ["cat"]}))
    datasets.DatasetDict({"dev": table}).save_to_disk(str(tmp_path / "dev"))
    with pytest.raises(ExpungeError, match="the splits dev; one must be called train"):
        load(tmp_path / "dev")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "state.json").write_text("{}")
    with pytest.raises(ExpungeError, match="datasets cannot load"):
        load(tmp_path / "odd")


def test_an_unknown_name(monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)  # ask nobody
    with pytest.raises(ExpungeError, match="datasets cannot load 'nobody/nothing'"):
        load("hf:nobody/nothing")
