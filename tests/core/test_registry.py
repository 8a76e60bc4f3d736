"""Registry: from names and plain data to methods."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar

import pytest
from torch import nn

import expunge as ex
from expunge import ExpungeError, registry
from expunge.method import Card, Job, Method
from expunge.methods.finetune import FineTune
from expunge.region import Region

CARD = Card("Nothing", frozenset({"class"}), frozenset({"classifier"}), frozenset(), "nothing", "none")


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it."""
    monkeypatch.setattr(registry, "_ADDED", {})


def own(name_: str, **more) -> type[Method]:
    @dataclass(frozen=True, kw_only=True)
    class Own(Method):
        strength: float = 1.0
        name: ClassVar[str] = name_
        card: ClassVar[Card] = CARD

        def apply(self, model: nn.Module, job: Job) -> nn.Module:
            return model

    Own.__qualname__ = more.get("qualname", Own.__qualname__)
    return Own


@pytest.mark.parametrize("name", registry.names())
def test_every_name_leads_to_a_method_of_that_name(name):
    cls = registry.get(name)
    assert cls.name == name
    assert issubclass(cls, Method)
    assert cls.__module__ == f"expunge.methods.{name}" or cls.__module__.startswith(f"expunge.methods.{name}.")


@pytest.mark.parametrize("name", registry.names())
def test_every_card_is_filled_in(name):
    cls = registry.get(name)
    card = cls.card
    assert card.scope <= {"class", "samples"}
    assert card.scope
    assert card.families <= {"classifier", "diffusion"}
    assert card.families
    assert card.needs <= {"retain", "forget", "recipe", "ledger"}
    assert card.title
    assert card.cost
    assert card.paper
    assert card.version >= 1
    assert "Cost:" in cls.__doc__
    for field in fields(cls):
        documented = any(f"        {field.name}: " in (c.__doc__ or "") for c in cls.__mro__)
        assert documented, f"{name}.{field.name} has no word of explanation"


def test_fields_come_as_yaml_gives_them():
    made = registry.make("finetune", {"epochs": 2, "lr": "1e-3", "region": {"layers": ["fc*"]}, "optimizer": "adam"})
    assert made == FineTune(epochs=2, lr=1e-3, region=Region.layers("fc*"), optimizer="adam")
    assert isinstance(made.lr, float)


@pytest.mark.parametrize(
    ("name", "fields", "words"),
    [
        ("finetun", {}, "Did you mean 'finetune'"),
        ("finetune", {"epoch": 3}, "no field 'epoch'. Did you mean 'epochs'"),
        ("finetune", {"epochs": "three"}, r"finetune\.epochs.*got 'three'"),
        ("finetune", {"epochs": 1.5}, r"finetune\.epochs"),
        ("finetune", {"schedule": "cosin"}, r"finetune\.schedule"),
        ("finetune", {"lr": -1}, "finetune: lr must be above 0"),
        ("finetune", {"lr": None}, r"finetune\.lr"),
        ("finetune", {"region": {"layer": "fc"}}, "Did you mean 'layers'"),
        ("random_label", {"draw": "twice"}, r"random_label\.draw"),
        ("random_label", {"mix": "shaken"}, r"random_label\.mix"),
        ("neggrad_plus", {"alpha": 1.5}, "alpha must be from 0 to 1"),
        ("gradient_ascent", {"ceiling": 0}, "ceiling must be above 0"),
        ("l1_sparse", {"gamma": -1}, "gamma"),
        ("last_layers", {"k": 0}, "k must be 1 or more"),
        ("last_layers", {"start": "cold"}, "start must be"),
        ("last_layers", {"region": "all"}, "region is the last k layers"),
        ("chain", {"steps": []}, "at least one step"),
        ("chain", {"steps": [{"name": "finetun"}]}, "Did you mean 'finetune'"),
        ("chain", {"steps": [{"epochs": 1}]}, "given by name"),
        ("chain", {"steps": "finetune"}, "steps"),
        ("chain", {"steps": [3]}, "given by name"),
    ],
)
def test_wrong_names_and_values_are_refused_by_name(name, fields, words):
    with pytest.raises(ExpungeError, match=words):
        registry.make(name, fields)


def test_all_wrong_fields_are_told_at_once():
    with pytest.raises(ExpungeError) as caught:
        registry.make("finetune", {"epoch": 3, "lr": "fast", "batch_size": "big"})
    assert len(str(caught.value).splitlines()) == 3


def test_from_config_takes_names_and_mappings_and_leaves_them_alone():
    config = {"name": "finetune", "epochs": 2}
    assert registry.from_config(config) == FineTune(epochs=2)
    assert config == {"name": "finetune", "epochs": 2}
    assert registry.from_config("finetune") == FineTune()
    with pytest.raises(ExpungeError, match="given by name"):
        registry.from_config({"epochs": 2})


@pytest.mark.usefixtures("added")
def test_a_method_of_ones_own_is_used_like_the_others(mlp, three):
    ex.register(own("own"))
    assert "own" in registry.names()
    assert registry.make("own", {"strength": 2}).strength == 2
    assert ex.unlearn(mlp, three, "own", strength=0.5).method.strength == 0.5
    assert "own" in registry.suitable("class", "classifier", ())
    assert "own" not in registry.suitable("samples", "classifier", ())
    ex.register(own("own"))  # again, as a notebook does


@pytest.mark.usefixtures("added")
def test_names_that_are_taken_or_missing_are_refused():
    with pytest.raises(ExpungeError, match="'finetune' already"):
        ex.register(own("finetune"))
    ex.register(own("own"))
    with pytest.raises(ExpungeError, match="'own' already"):
        ex.register(own("own", qualname="Another"))
    with pytest.raises(ExpungeError, match="needs a `name` and a `card`"):
        ex.register(own(""))


def test_the_method_that_refuses_is_not_among_those_offered(mlp, three):
    with pytest.raises(ExpungeError) as raised:
        ex.unlearn(mlp, three, "finetune", region={"layers": ["nope"]})
    offered = str(raised.value).split("Methods for this request: ")[1].rstrip(".").split(", ")
    assert set(offered) >= set(registry.suitable("class", "classifier", ())) - {"finetune"}
    assert "finetune" not in offered


def test_suitable_methods_are_those_whose_cards_fit():
    for scope in ("class", "samples"):
        found = registry.suitable(scope, "classifier", ())
        assert "finetune" in found
        assert not {"original", "retrain", "chain"} & set(found)
        assert all(scope in registry.get(n).card.scope for n in found)
        assert all("recipe" not in registry.get(n).card.needs for n in found)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (3, "got 3."),
        (FineTune, "got the class FineTune: make one of it."),
        (None, "got None."),
        ({"name": "finetune"}, "got {"),
    ],
)
def test_what_is_no_method_is_refused(mlp, three, given, told):
    with pytest.raises(ExpungeError, match="The method is a name, such as 'finetune', or an instance") as refusal:
        ex.unlearn(mlp, three, given)
    assert told in str(refusal.value)
    with pytest.raises(ExpungeError, match="The method is a name"):
        ex.unlearn(mlp, three, given, epochs=1)
