"""Rows and Scale against NumPy, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset

from expunge.data import Rows, Scale
from expunge.data.adapt import as_rows
from expunge.errors import ExpungeError, Problems


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (30, 3, 5, 4), dtype=np.uint8)


def test_scale_is_numpys_mean_and_deviation_of_each_channel(images):
    scale = Scale.of(torch.from_numpy(images))
    unit = images / 255.0
    np.testing.assert_allclose(scale.mean, unit.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(scale.std, unit.std((0, 2, 3)), rtol=1e-12)


def test_inputs_are_scaled_images(images):
    rows = Rows(images, np.arange(30) % 3)
    unit = images / 255.0
    mean, std = unit.mean((0, 2, 3), keepdims=True), unit.std((0, 2, 3), keepdims=True)
    index = torch.tensor([4, 0, 29, 4])
    np.testing.assert_allclose(rows.x(index).numpy(), ((unit - mean) / std)[index.numpy()], atol=1e-5)
    assert rows.x(index).dtype == torch.float32
    assert rows.shape == (3, 5, 4)


def test_a_constant_channel_gives_zeros_not_infinity():
    rows = Rows(np.full((4, 1, 2, 2), 7, np.uint8), [0, 1, 0, 1])
    np.testing.assert_allclose(rows.x(torch.arange(4)).numpy(), 0, atol=1e-4)


def test_floats_and_tokens_pass_through():
    x = np.random.default_rng(0).normal(size=(5, 2))
    np.testing.assert_allclose(Rows(x, [0] * 5).x(torch.arange(5)).numpy(), x, rtol=1e-6)
    tokens = np.arange(10).reshape(5, 2)
    assert Rows(tokens, [0] * 5).x(torch.tensor([3])).tolist() == [[6, 7]]
    assert Rows(tokens, [0] * 5).x(torch.tensor([3])).dtype == torch.int64


@pytest.mark.parametrize("workers", [0, 1])
def test_a_dataloader_over_rows_gives_the_rows(images, workers):
    rows = Rows(images, np.arange(30) % 3)
    batches = list(DataLoader(rows, batch_size=8, num_workers=workers))
    assert torch.equal(torch.cat([x for x, _ in batches]), rows.x(torch.arange(30)))
    assert torch.equal(torch.cat([y for _, y in batches]), rows.y)


def test_one_row_is_a_row_of_the_batch(images):
    rows = Rows(images, np.arange(30) % 3)
    x, y = rows[7]
    assert torch.equal(x, rows.x(torch.arange(30))[7])
    assert y == 7 % 3


class Squares(Dataset):
    def __len__(self):
        return 6

    def __getitem__(self, i):
        return torch.tensor([float(i), float(i * i)]), i % 2


def test_a_dataset_is_read_row_by_row_and_taken_from():
    rows = Rows(Squares(), [i % 2 for i in range(6)], ids=list("abcdef"))
    assert rows.x(torch.tensor([3, 1])).tolist() == [[3, 9], [1, 1]]
    part = rows.take(torch.tensor([5, 2])).take(torch.tensor([1]))
    assert part.x(torch.tensor([0])).tolist() == [[2, 4]]
    assert part.ids.tolist() == ["c"]
    assert part.y.tolist() == [0]


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_positions_undo_ids_and_take_keeps_them(data):
    ids = data.draw(st.lists(st.integers(-1000, 1000), min_size=1, max_size=30, unique=True))
    rows = Rows(np.array(ids, float)[:, None], np.arange(len(ids)) % 3, ids=ids)
    chosen = data.draw(st.lists(st.sampled_from(ids), min_size=1, max_size=30))
    at = rows.positions(chosen)
    assert [ids[i] for i in at] == chosen
    once = torch.unique(at)
    part = rows.take(once)
    assert part.ids.tolist() == [ids[i] for i in once]
    assert part.x(torch.arange(len(part)))[:, 0].tolist() == part.ids.tolist()
    assert torch.equal(part.y, rows.y[once])
    assert part.positions(part.ids).tolist() == list(range(len(part)))


def test_take_keeps_texts_vocabulary_classes_and_scale(images):
    words = ("<padding>", "<unknown>", "b", "c")
    texts = [f"t{i}" for i in range(4)]
    rows = Rows(np.eye(4, dtype=int), range(4), texts=texts, vocabulary=words, classes="wxyz")
    part = rows.take(torch.tensor([2, 0]))
    assert part.texts == ("t2", "t0")
    assert (part.vocabulary, part.classes) == (words, tuple("wxyz"))
    pictures = Rows(images, np.arange(30) % 3)
    assert pictures.take(torch.tensor([0])).scale == pictures.scale


@pytest.mark.parametrize("make", [list, tuple, np.array, torch.tensor, lambda v: np.array(v, np.uint8)])
def test_positions_come_in_any_sequence(images, make):
    rows = Rows(images, np.arange(30) % 3, ids=[f"r{i}" for i in range(30)])
    expected = rows.x(torch.tensor([3, 1]))
    assert torch.equal(rows.x(make([3, 1])), expected)
    assert torch.equal(rows.take(make([3, 1])).x(torch.arange(2)), expected)
    assert rows.take(make([3, 1])).ids.tolist() == ["r3", "r1"]


def test_a_mask_one_position_and_those_from_the_end(images):
    rows = Rows(images, np.arange(30) % 3)
    mask = [i in (4, 9) for i in range(30)]
    for one in (mask, np.array(mask), torch.tensor(mask)):
        assert rows.take(one).ids.tolist() == [4, 9]
    assert torch.equal(rows.x(3), rows.x(torch.tensor([3])))
    assert torch.equal(rows.x(np.int64(3)), rows.x(torch.tensor([3])))
    assert rows.take([-1, 0]).ids.tolist() == [29, 0]
    assert len(rows.take([])) == 0


@pytest.mark.parametrize("given", [[30], [-31], torch.tensor([0, 99]), [0.5], ["a"], None, slice(0, 3), [True, False]])
def test_what_are_no_positions_is_refused(images, given):
    rows = Rows(images, np.arange(30) % 3)
    with pytest.raises(ExpungeError, match=r"Expected positions of rows, 0\.\.29, or a mask of 30 values"):
        rows.take(given)


def test_scaled_like_uses_the_other_scale(images):
    train, test = Rows(images, [0] * 30), Rows(images // 2, [0] * 30)
    expected = (images // 2 / 255.0 - np.reshape(train.scale.mean, (-1, 1, 1))) / np.reshape(
        train.scale.std, (-1, 1, 1)
    )
    np.testing.assert_allclose(test.scaled_like(train).x(torch.arange(30)).numpy(), expected, atol=1e-5)
    assert test.scale != train.scale


def test_hash_tells_inputs_labels_and_ids_apart(images):
    y = np.arange(30) % 3
    rows = Rows(images, y)
    assert rows.hash == Rows(images.copy(), y.copy()).hash
    changed = images.copy()
    changed[3, 0, 0, 0] ^= 1
    others = [
        Rows(changed, y, scale=rows.scale),
        Rows(images, y[::-1].copy()),
        Rows(images, y, ids=np.arange(30) + 1),
    ]
    assert len({rows.hash, *(other.hash for other in others)}) == 4


class Broken(Dataset):
    """Rows that cannot be read."""

    def __len__(self):
        return 30

    def __getitem__(self, i):
        raise OSError(f"no file {i}")


def test_a_hash_of_labels_and_ids_alone_reads_no_input():
    y = np.arange(30) % 3
    one = Rows(Broken(), y, hash_inputs=False)
    x = np.ones((30, 4))
    assert one.hash == Rows(x, y, hash_inputs=False).hash != Rows(x, y).hash
    assert one.hash != Rows(Broken(), y[::-1].copy(), hash_inputs=False).hash
    assert one.hash != Rows(Broken(), y, ids=np.arange(30) + 1, hash_inputs=False).hash
    assert len(one.take(torch.arange(5)).hash) == 32  # a part of them reads none either
    renamed = as_rows(one, name="other")
    assert renamed.hash == one.hash


def test_a_hash_that_needs_a_row_that_cannot_be_read_says_so():
    rows = Rows(Broken(), np.arange(30) % 3, name="scans")
    with pytest.raises(ExpungeError, match=r"scans: not every row can be read.*no file 0\. .*hash_inputs=False"):
        _ = rows.hash


X = np.ones((4, 2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": X, "y": [0, 1, 0]}, "4 inputs, 3 labels"),
        ({"x": X, "y": [0, 1, 0, 1], "ids": [1, 2, 3]}, "3 ids"),
        ({"x": X, "y": [0, 1, 0, 1], "ids": [1, 2, 3, 1]}, "uses an id twice"),
        ({"x": X, "y": [0, 1, 0, 1], "ids": [1.5, 2, 3, 4]}, "integer or string"),
        ({"x": X, "y": [0, 1, 0, 1], "texts": ["a"]}, "1 texts and 4 labels"),
        ({"x": X, "y": [0, 1, 0, -1]}, "smallest is -1"),
        ({"x": X, "y": [0, 1, 0, 0.5]}, "must be integers"),
        ({"x": X, "y": np.eye(4)}, r"got shape \(4, 4\)"),
        ({"x": X, "y": [0, 1, 0, 3], "classes": ["a", "b"]}, "label 3, but only 2"),
        ({"x": np.array([[1, 2], [np.nan, 1], [1, 1], [1, np.inf]]), "y": [0] * 4}, "2 rows .* position 1"),
        ({"x": np.ones((4, 8, 8), np.uint8), "y": [0] * 4}, r"\(N, channels, height, width\)"),
        ({"x": np.ones((0, 2)), "y": np.zeros(0, int)}, "no rows"),
    ],
)
def test_what_is_wrong_is_refused(arguments, message):
    with pytest.raises(ExpungeError, match=message):
        Rows(**arguments)


def test_all_problems_are_told_at_once():
    with pytest.raises(Problems) as caught:
        Rows(np.array([[np.nan]] * 3), [0, 5, 0], ids=[1, 1, 2], classes=["a"])
    assert len(caught.value.problems) == 3


def test_unknown_ids_are_named():
    rows = Rows(X, [0, 1, 0, 1], ids=["a", "b", "c", "d"], name="mine")
    with pytest.raises(ExpungeError, match=r"2 of 3 ids are not in mine, e\.g\. 'x', 'y'.*'a', 'b', 'c'"):
        rows.positions(["a", "x", "y"])


def test_a_row_that_cannot_be_read_is_named_by_its_id():
    rows = Rows(Broken(), np.arange(30) % 3, ids=[f"r{i}" for i in range(30)], hash_inputs=False)
    with pytest.raises(
        ExpungeError, match=r"the row of id 'r7' cannot be read: no file 7\. If it is gone, leave it out"
    ):
        rows.x(torch.tensor([7]))
    with pytest.raises(ExpungeError, match=r"the row of id 'r9' cannot be read: no file 9"):
        rows.take(torch.tensor([4, 9])).x(torch.tensor([1]))
    with pytest.raises(IndexError):  # by which a loop over rows ends
        Rows([[1.0], [2.0]], [0, 1])[2]


def test_rows_of_sixteen_bits_have_a_hash():
    x = torch.arange(24.0).view(6, 4)
    made = [Rows(x.to(dtype), [0, 1] * 3).hash for dtype in (torch.float32, torch.float16, torch.bfloat16)]
    assert len(set(made)) == 3
