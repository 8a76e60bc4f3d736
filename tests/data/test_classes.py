"""A class by name, by label, and where a number could be either."""

from __future__ import annotations

import numpy as np
import pytest

from expunge.data import Rows
from expunge.data.classes import label
from expunge.errors import ExpungeError, UnknownName

SHIFTED = ["1", "2", "3"]


@pytest.mark.parametrize(
    ("given", "names", "expected"),
    [
        ("dog", ["cat", "dog"], 1),
        (1, ["cat", "dog"], 1),
        ("1", ["cat", "dog"], 1),
        (np.int64(0), ["cat", "dog"], 0),
        ("7", [str(c) for c in range(10)], 7),  # name and label agree
        (7, [str(c) for c in range(10)], 7),
        (0, SHIFTED, 0),  # no class has this name
        (3, SHIFTED, 2),  # no class has this label
        ("3", SHIFTED, 2),
        ("name:1", SHIFTED, 0),
        ("label:1", SHIFTED, 1),
        ("name:cat", ["cat", "dog"], 0),
        ("name:1", ["name:1", "1"], 0),  # the whole of it is a name
        ("02", ["01", "02"], 1),
        (2019, ["2018", "2019"], 1),
    ],
)
def test_a_class_is_found(given, names, expected):
    assert label(given, names) == expected


@pytest.mark.parametrize("given", [1, "1", np.int64(1), 2, "2", "01"])
def test_a_number_that_means_two_classes_is_refused_in_every_form(given):
    """The command line gives text, YAML numbers; both must mean the same class."""
    n = int(given)
    told = f"is the label of class '{n + 1}' and the name of the class with label {n - 1}.*'label:{n}' or 'name:{n}'"
    with pytest.raises(ExpungeError, match=told):
        label(given, SHIFTED)


@pytest.mark.parametrize("given", [4, "4", -1, "label:3", "label:-1", "label:x"])
def test_labels_that_no_class_has_are_refused(given):
    with pytest.raises(ExpungeError, match=r"labels run 0\.\.2 \(1, 2, 3\)"):
        label(given, SHIFTED)


@pytest.mark.parametrize("given", ["cta", "name:cta", "-1", None, 1.0, True, ["cat"]])
def test_names_that_no_class_has_are_refused(given):
    with pytest.raises(UnknownName):
        label(given, ["cat", "dog"])


def test_two_classes_of_one_name_are_refused():
    with pytest.raises(ExpungeError, match=r"mine has several classes named a, b; each needs a name of its own\."):
        Rows(np.ones((5, 2)), [0, 1, 2, 3, 4], classes=list("aabbc"), name="mine")
