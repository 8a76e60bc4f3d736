"""The user's own data as rows."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset

from expunge.data import Rows, as_rows, load
from expunge.data.layout import inputs
from expunge.errors import ExpungeError

DIGITS = load_digits()
IMAGES = np.rint(DIGITS.images * (255 / 16)).astype(np.uint8)[:60]
LABELS = DIGITS.target[:60]


class Own(Dataset):
    """A map-style dataset that counts how often each row is read."""

    def __init__(self, items, **attributes):
        self.items = items
        self.reads = [0] * len(items)
        self.__dict__.update(attributes)

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        self.reads[i] += 1
        return self.items[i]


def items(convert=torch.from_numpy):
    return [(convert(x), int(y)) for x, y in zip(IMAGES, LABELS)]


EVERY = torch.arange(60)


def test_rows_are_returned_as_they_are():
    rows = Rows(np.ones((2, 3)), [0, 1])
    assert as_rows(rows) is rows
    renamed = as_rows(rows, ids=["a", "b"], name="mine")
    assert (renamed.ids.tolist(), renamed.name, rows.ids.tolist()) == (["a", "b"], "mine", [0, 1])


@pytest.mark.parametrize(
    "data",
    [
        (IMAGES, LABELS),
        (torch.from_numpy(IMAGES), torch.from_numpy(LABELS)),
        [IMAGES, LABELS],
        TensorDataset(torch.from_numpy(IMAGES), torch.from_numpy(LABELS)),
        Own(items()),
        Own(items(Image.fromarray)),
        items(np.array),
        Subset(Own(items()), range(60)),
    ],
    ids=["arrays", "tensors", "list", "TensorDataset", "Dataset", "Pillow", "list of pairs", "Subset"],
)
def test_every_form_gives_the_same_rows(data):
    rows = as_rows(data)
    expected = Rows(IMAGES[:, None], LABELS)
    assert isinstance(rows.source, torch.Tensor)
    assert torch.equal(rows.x(EVERY), expected.x(EVERY))
    assert torch.equal(rows.y, expected.y)
    assert rows.ids.tolist() == list(range(60))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((7, 8, 9), (7, 1, 8, 9)),
        ((7, 8, 9, 3), (7, 3, 8, 9)),
        ((7, 8, 9, 1), (7, 1, 8, 9)),
        ((7, 3, 8, 9), (7, 3, 8, 9)),
        ((7, 4, 8, 9), (7, 4, 8, 9)),
        ((7, 3, 4, 4), (7, 4, 3, 4)),  # the last axis decides
    ],
)
def test_where_the_channels_go(shape, expected):
    x = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    found = inputs(x)
    assert tuple(found.shape) == expected
    axes = (0, 3, 1, 2) if len(shape) == 4 and shape[-1] in (1, 3, 4) else tuple(range(len(shape)))
    np.testing.assert_array_equal(found.numpy().reshape(expected), x.transpose(axes).reshape(expected))


@pytest.mark.parametrize("shape", [(7, 8), (7, 5, 8, 9), (7, 1, 2, 3, 4)])
def test_bytes_that_are_no_images(shape):
    with pytest.raises(ExpungeError, match="are not images"):
        inputs(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("x", [np.array(["a", "b"]), np.array([{}, {}]), np.ones(3), np.ones((3, 2), complex)])
def test_arrays_that_are_no_inputs(x):
    with pytest.raises(ExpungeError, match="expected uint8 images"):
        inputs(x)


def test_foreign_byte_order_and_read_only_arrays(recwarn):
    x = np.arange(6.0).reshape(3, 2)
    frozen = x.copy()
    frozen.setflags(write=False)
    assert inputs(x.astype(">f8")).tolist() == inputs(frozen).tolist() == x.tolist()
    assert not recwarn.list


def test_a_steady_dataset_is_read_once_and_probes_twice():
    data = Own(items())
    as_rows(data)
    assert sum(data.reads) == 60 + 2 * 8 + 1  # one pass, eight rows twice, the first once more for its dtype
    assert max(data.reads) <= 4


class Noisy(Own):
    def __getitem__(self, i):
        x, y = super().__getitem__(i)
        return x + torch.rand(8, 8) + np.random.rand() + random.random(), y


def test_augmentation_inside_stays_alive_and_the_random_state_is_kept():
    data = Noisy(items(lambda x: torch.from_numpy(x).float()), targets=LABELS.tolist())
    states = torch.get_rng_state(), np.random.get_state()[2], random.getstate()
    rows = as_rows(data)
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1:] == (np.random.get_state()[2], random.getstate())
    assert not isinstance(rows.source, torch.Tensor)
    assert not torch.equal(rows.x(torch.tensor([5])), rows.x(torch.tensor([5])))
    assert rows.y.tolist() == LABELS.tolist()
    assert sum(data.reads) == 2 * 8 + 2  # the probes and the two just now: the labels came from `targets`


def test_too_large_stays_unread_and_is_scaled_by_its_rows():
    data = Own(items(), labels=torch.from_numpy(LABELS))
    rows = as_rows(data, memory=60 * 64 - 1)
    assert not isinstance(rows.source, torch.Tensor)
    expected = Rows(IMAGES[:, None], LABELS)  # 60 rows are fewer than the 512 that the scale looks at
    assert torch.equal(rows.x(EVERY), expected.x(EVERY))
    assert isinstance(as_rows(data, memory=60 * 64).source, torch.Tensor)


def test_label_attributes_that_disagree_are_not_believed():
    data = Own(items(), targets=[9 - y for y in LABELS])
    assert as_rows(data, memory=1).y.tolist() == LABELS.tolist()


def test_ids_and_classes_of_the_dataset():
    names = [f"img{i}" for i in range(60)]
    data = Own(items(), ids=names, classes=[f"digit {c}" for c in range(10)])
    rows = as_rows(data)
    assert rows.ids.tolist() == names
    assert rows.classes[3] == "digit 3"
    assert as_rows(data, ids=range(60)).ids[4] == 4
    assert as_rows(Own(items(), classes=["one"])).classes == tuple("0123456789")


@pytest.mark.parametrize("many", [59, 61])
@pytest.mark.parametrize("make", [list, np.array, torch.tensor])
def test_ids_of_another_number_are_not_passed_over(many, make):
    """By positions, another row than the one meant would go."""
    with pytest.raises(ExpungeError, match=f"Own has 60 rows and {many} ids"):
        as_rows(Own(items(), ids=make(range(1, many + 1))))


@pytest.mark.parametrize("none", [None, "an id", {1: 2}, len, np.array(3)])
def test_what_is_no_sequence_of_ids_is_passed_over(none):
    assert as_rows(Own(items(), ids=none)).ids.tolist() == list(range(60))


class Stream(IterableDataset):
    def __iter__(self):
        return iter(items())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Stream(), "no length or cannot be asked"),
        (iter([]), "no length"),
        ({"train": 1, "test": 2}, "dict with train, test; give one"),
        (Own([]), "has no rows"),
        (Own([{"x": 1}]), "row 0 is a dict"),
        (Own([(torch.ones(2), "cat")]), "label of row 0 is 'cat'"),
        (Own([(torch.ones(2), [0, 1])]), "label of row 0"),
        (Own([(torch.ones(2), float("nan"))]), "label of row 0 is nan"),
        (Own([("a text", 1)]), "cannot be a tensor"),
        (Own([(torch.ones(2), 0), (torch.ones(3), 0)]), r"row 1 has shape \(3,\), other rows \(2,\)"),
        (Own([(torch.tensor([1.0, float("nan")]), 0)] * 3), "NaN"),
        ((np.ones((3, 2)), [0, 1]), "3 inputs, 2 labels"),
        (Own([(torch.ones(2), -1)]), "smallest is -1"),
    ],
)
def test_what_cannot_be_rows(data, message):
    with pytest.raises(ExpungeError, match=message):
        as_rows(data)


def test_both_sets_of_load_are_one_too_many():
    with pytest.raises(ExpungeError, match="give one of them"):
        as_rows(load("digits"))


@pytest.mark.parametrize("kind", [list, np.array])
def test_a_part_of_a_dataset_has_its_class_names(kind):
    class Named(Dataset):
        classes = kind(["cat", "dog", "eel"])

        def __len__(self):
            return 12

        def __getitem__(self, i):
            return torch.full((1, 4, 4), float(i)), i % 3

    part = Subset(Named(), range(9))
    assert as_rows(part).classes == ("cat", "dog", "eel")
    assert as_rows(Subset(part, [0, 1, 2])).classes == ("cat", "dog", "eel")


def test_inputs_that_require_a_gradient_are_values_as_others(train):
    x, y = train.x(torch.arange(20)), train.y[:20]
    assert as_rows((x.clone().requires_grad_(), y)).hash == as_rows((x, y)).hash
