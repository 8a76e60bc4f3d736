"""Fields: which values are of the kind that an annotation names, what they become, and what is told of the others."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import FrozenInstanceError, dataclass, field, replace
from typing import Any, ClassVar, Literal, Optional, Protocol, Union

import numpy as np
import pytest
import torch
import yaml

from expunge import ExpungeError
from expunge.errors import Diverged, Problems
from expunge.fields import Typed
from expunge.methods.finetune import FineTune
from expunge.region import Region


class Shape(Protocol):
    """A kind that cannot be asked for."""


@dataclass(frozen=True, kw_only=True)
class Kinds(Typed):
    """One field of each kind."""

    name: ClassVar[str] = "kinds"

    count: int = 3
    rate: float = 0.5
    flag: bool = False
    word: str = "a"
    few: Literal["one", "two", "three"] = "one"
    maybe: float | None = None
    old: Optional[int] = None  # noqa: UP045 (both ways to write it)
    either: Union[bool, str] = "x"  # noqa: UP007
    scales: tuple[float, ...] = (1.0,)
    pair: tuple[int, str] = (1, "a")
    globs: tuple[str, ...] | None = None
    region: Region | None = None
    function: Callable[..., Any] | None = None
    table: Mapping[str, int] = field(default_factory=dict)
    anything: Any = None
    shape: Shape | None = None
    sloppy: float = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("name", "given", "kept"),
    [
        ("rate", 2, 2.0),
        ("rate", np.float32(0.5), 0.5),
        ("rate", torch.tensor(0.25), 0.25),
        ("rate", np.int64(3), 3.0),
        ("maybe", 1, 1.0),
        ("maybe", None, None),
        ("count", np.int64(5), 5),
        ("count", torch.tensor(5), 5),
        ("flag", np.bool_(True), True),
        ("few", np.str_("two"), "two"),
        ("old", 4, 4),
        ("either", True, True),
        ("scales", [1, np.float64(2.5)], (1.0, 2.5)),
        ("scales", (), ()),
        ("pair", [2, "b"], (2, "b")),
        ("globs", ["fc*"], ("fc*",)),
        ("region", "saliency", "saliency"),
        ("function", len, len),
        ("table", {"a": 1}, {"a": 1}),
        ("anything", object, object),
        ("shape", 3, 3),
    ],
)
def test_what_says_the_same_becomes_the_plain_kind(name, given, kept):
    got = getattr(Kinds(**{name: given}), name)
    assert got == kept
    assert type(got) is type(kept)
    if isinstance(kept, (int, float)):
        assert yaml.safe_load(yaml.safe_dump(got)) == kept  # a scalar of NumPy could not be written


def test_a_number_that_is_none_is_left_to_the_ranges():
    assert math.isnan(Kinds(rate=math.nan).rate)


@pytest.mark.parametrize(
    ("name", "wrong", "said"),
    [
        ("count", 2.5, "count must be a whole number; got 2.5."),
        ("count", 3.0, "count must be a whole number; got 3.0."),
        ("count", True, "count must be a whole number; got True."),
        ("count", "5", "count must be a whole number; got '5'."),
        ("rate", "0.5", "rate must be a number; got '0.5'."),
        ("rate", False, "rate must be a number; got False."),
        ("rate", None, "rate must be a number; got None."),
        ("rate", 10**400, "rate must be a number; got 1000"),
        ("rate", np.array([1.0, 2.0]), "rate must be a number; got array"),
        ("rate", np.bool_(True), "rate must be a number; got "),
        ("flag", 1, "flag must be true or false; got 1."),
        ("word", 3, "word must be text; got 3."),
        ("few", "tow", "few must be one, two or three; got 'tow'. Did you mean 'two'?"),
        ("few", np.array(["one", "two"]), "few must be one, two or three; got array"),
        ("maybe", "1", "maybe must be a number, or none; got '1'."),
        ("old", 1.5, "old must be a whole number, or none; got 1.5."),
        ("either", 1, "either must be true or false, or text; got 1."),
        ("scales", 1.0, "scales must be a list, each a number; got 1.0."),
        ("scales", "12", "scales must be a list, each a number; got '12'."),
        ("scales", (1.0, None), "scales must be a list, each a number; got (1.0, None)."),
        ("pair", (1,), "pair must be a list, each a whole number and text; got (1,)."),
        ("globs", ("fc*", 3), "globs must be a list, each text, or none; got ('fc*', 3)."),
        ("function", "len", "function must be a Callable, or none; got 'len'."),
        ("table", [1], "table must be a Mapping; got [1]."),
    ],
)
def test_another_kind_is_refused_in_words(name, wrong, said):
    with pytest.raises(ExpungeError) as caught:
        Kinds(**{name: wrong})
    assert str(caught.value).startswith(f"kinds: {said}")
    with pytest.raises(ExpungeError):
        replace(Kinds(), **{name: wrong})


def test_a_default_is_the_authors_own_business():
    assert Kinds().sloppy is None
    assert Kinds(sloppy=None).sloppy is None
    with pytest.raises(ExpungeError, match="sloppy"):
        Kinds(sloppy="x")


@dataclass(frozen=True, kw_only=True)
class Ranged(Kinds):
    """With a check of its own, which does not ask for kinds."""

    least: float = 1.0

    def __post_init__(self) -> None:
        if self.least > 100:
            raise Diverged("too much")
        found = [f"{name} is 0" for name in ("count", "rate") if not getattr(self, name) > 0]
        if found:
            raise Problems(found)


@dataclass(frozen=True, kw_only=True)
class Further(Ranged):
    """Calls the check that it inherits."""

    bare: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bare < self.least:
            raise ExpungeError("bare is small")


def test_a_subclass_checks_on_without_having_to_ask_and_all_is_told_at_once():
    with pytest.raises(Problems) as caught:
        Ranged(count=0, rate="fast", flag=3)
    assert caught.value.problems == [
        "kinds: rate must be a number; got 'fast'.",
        "kinds: flag must be true or false; got 3.",
        "count is 0",
    ]
    with pytest.raises(Diverged):  # an error of its own stays what it is
        Ranged(least=1000)
    assert Ranged(least=2).least == 2.0
    with pytest.raises(FrozenInstanceError):
        Ranged().count = 3  # type: ignore[misc]


def test_a_field_without_a_default_is_checked_as_well():
    with pytest.raises(ExpungeError, match="bare is small"):
        Further(bare=0)
    with pytest.raises(Problems) as caught:
        Further(bare="x", flag=0)
    assert len(caught.value.problems) == 2
    with pytest.raises(Problems) as caught:
        Further(bare=3, flag=0, count=-1)
    assert caught.value.problems[1:] == ["count is 0"]


def test_names_that_only_a_type_checker_sees_are_let_pass():
    @dataclass(frozen=True)
    class Own(Typed):
        one: Unheard = 3  # type: ignore[name-defined]  # noqa: F821

    assert Own("x").one == "x"


def test_fields_that_there_are_not_are_told_with_near_names():
    with pytest.raises(Problems) as raised:
        Kinds(coutn=3, ratee=0.1, word="b")
    first, second = raised.value.problems
    assert "Kinds has no field 'coutn'. Did you mean 'count'" in first
    assert "'ratee'. Did you mean 'rate'" in second
    assert "shape" in first.split("Its fields: ")[1]
    with pytest.raises(ExpungeError, match="has no field 'coutn'"):
        replace(Kinds(), coutn=3)
    with pytest.raises(ExpungeError, match=r"given by name: count, rate.*; got 3 without one"):
        Kinds(3)


def test_copies_are_made_without_names():
    import copy
    import pickle

    one = FineTune(epochs=7, region=Region.last(1))
    assert copy.deepcopy(one) == copy.copy(one) == pickle.loads(pickle.dumps(one)) == one
