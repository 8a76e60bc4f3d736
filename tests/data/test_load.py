"""Names, paths, limits; digits against scikit-learn; the real sets where EXPUNGE_DATA has them."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from expunge.data import load
from expunge.data.catalogue import find
from expunge.errors import ExpungeError, UnknownName


def test_digits_are_scikit_learns():
    bunch = load_digits()
    train, test = load("digits")
    assert (len(train), len(test), train.shape) == (1438, 359, (1, 8, 8))
    assert sorted([*train.ids, *test.ids]) == list(range(1797))
    for rows in (train, test):
        stored = rows.source[:, 0].numpy()
        assert stored.dtype == np.uint8
        assert np.abs(stored - bunch.images[rows.ids] * 255 / 16).max() <= 0.5
        assert rows.y.tolist() == bunch.target[rows.ids].tolist()
        share = np.bincount(rows.y) / len(rows)
        np.testing.assert_allclose(share, np.bincount(bunch.target) / 1797, atol=1 / 359)
    assert train.classes == tuple("0123456789")


def test_test_rows_are_scaled_as_the_training_rows():
    train, test = load("digits")
    unit = train.source.numpy() / 255.0
    expected = (test.source.numpy() / 255.0 - unit.mean()) / unit.std()
    np.testing.assert_allclose(test.x(torch.arange(len(test))).numpy(), expected, atol=1e-5)


def test_the_split_of_digits_ignores_the_seed():
    assert [rows.hash for rows in load("digits", seed=0)] == [rows.hash for rows in load("digits", seed=7)]


def test_limit_is_a_stratified_part_with_its_ids_and_the_whole_scale():
    whole, test = load("digits")
    part, same_test = load("digits", limit=200, seed=3)
    assert len(part) == 200
    assert np.abs(np.bincount(part.y) - 200 * np.bincount(whole.y) / len(whole)).max() < 1
    assert part.scale == whole.scale
    assert test.hash == same_test.hash
    at = whole.positions(part.ids)
    assert torch.equal(whole.x(at), part.x(torch.arange(200)))
    assert torch.equal(whole.y[at], part.y)
    assert load("digits", limit=200, seed=3)[0].hash == part.hash
    assert load("digits", limit=200, seed=4)[0].hash != part.hash


def test_a_limit_beyond_the_data_is_all_of_it():
    assert load("digits", limit=1438)[0].hash == load("digits", limit=10**9)[0].hash == load("digits")[0].hash
    assert np.bincount(load("digits", limit=10)[0].y).tolist() == [1] * 10


@pytest.mark.parametrize(
    ("limit", "message"),
    [(9, "at least 10"), (0, "at least"), (-5, "got -5"), (0.5, "whole"), (True, "whole")],
)
def test_impossible_limits(limit, message):
    with pytest.raises(ExpungeError, match=message):
        load("digits", limit=limit)


def test_unknown_names_say_where_names_come_from(data_folder, monkeypatch):
    np.savez(data_folder / "mnist.npz", a=1)
    with pytest.raises(UnknownName, match=r"'mnsit'. Did you mean 'mnist'.*EXPUNGE_DATA=.*path"):
        load("mnsit")
    monkeypatch.setenv("EXPUNGE_DATA", str(data_folder / "nowhere"))
    with pytest.raises(UnknownName, match=r"There are: digits\..*nowhere, which is not a folder.*path"):
        load("mnist")
    monkeypatch.delenv("EXPUNGE_DATA")
    with pytest.raises(UnknownName, match=r"EXPUNGE_DATA is not set"):
        load("mnist")
    with pytest.raises(UnknownName):
        load(data_folder / "missing.npz")
    with pytest.raises(UnknownName):
        load("")


def test_names_do_not_leave_the_data_folder(data_folder, monkeypatch):
    inside = data_folder / "inside"
    inside.mkdir()
    np.savez(data_folder / "secret.npz", a=1)
    monkeypatch.setenv("EXPUNGE_DATA", str(inside))
    assert find("../secret") is None


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("a,b")
    with pytest.raises(ExpungeError, match=r"neither an \.npz nor a \.jsonl\.gz"):
        load(path)


def test_importing_loads_no_reader():
    code = "import sys, expunge.data; print([m for m in ('sklearn', 'datasets', 'PIL') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("name", "sizes", "shape"),
    [("mnist", (60_000, 10_000), (1, 28, 28)), ("pneumoniamnist", (4_708, 624), (1, 28, 28))],
)
def test_real_images(real, name, sizes, shape):
    train, test = real(name)
    assert (len(train), len(test)) == sizes
    assert train.shape == shape
    with np.load(find(name), allow_pickle=False) as file:
        for rows, part in ((train, "train"), (test, "test")):
            np.testing.assert_array_equal(rows.source[:, 0].numpy(), file[f"x_{part}"])
            np.testing.assert_array_equal(rows.y.numpy(), file[f"y_{part}"])
    assert test.scale == train.scale


def test_real_unbalanced_limit(real):
    train, _ = real("pneumoniamnist")
    part, _ = load("pneumoniamnist", limit=100)
    quota = 100 * np.bincount(train.y) / len(train)
    assert np.abs(np.bincount(part.y) - quota).max() < 1
    assert part.classes == ("normal", "pneumonia")
    unit = train.source.numpy() / 255.0
    np.testing.assert_allclose([*part.scale.mean, *part.scale.std], [unit.mean(), unit.std()], rtol=1e-9)


def test_real_text(real):
    train, test = real("trec6")
    assert (len(train), len(test)) == (5452, 500)
    with gzip.open(os.path.join(os.environ["EXPUNGE_DATA"], "trec6.jsonl.gz"), "rt") as file:
        records = [json.loads(line) for line in file]
    for rows, split in ((train, "train"), (test, "test")):
        assert list(rows.texts) == [r["text"] for r in records if r["split"] == split]
        assert rows.y.tolist() == [r["label"] for r in records if r["split"] == split]
    assert len(train.vocabulary) <= 20_002
    assert int(train.source.max()) == len(train.vocabulary) - 1  # every word of the vocabulary occurs
    assert not (train.source == 1).any()  # and no training word is unknown
    assert (test.source == 1).any()
