"""Search: where it turns the dial, what it judges by, and that it finds the strength that a fixed setting misses."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_curve
from torch import nn

import expunge as ex
from expunge import ExpungeError, Request, registry
from expunge.errors import Diverged
from expunge.method import Card, Job, Method
from expunge.methods import SSD, FineTune, GradientAscent, LastLayers, NegGradPlus, Original, Retrain, Search
from expunge.methods.dial import Dial
from expunge.methods.stand_in import threshold
from kit import accuracy, bits


@dataclass(frozen=True, kw_only=True)
class Damping(Method):
    """Scales the last layer's row of class 3: at 0 the class is forgotten, and nothing else is touched."""

    strength: float = 1.0
    asked: ClassVar[list[float]] = []

    name: ClassVar[str] = "damping"
    card: ClassVar[Card] = Card(
        title="test", scope=frozenset({"class", "samples"}), families=frozenset({"classifier"}),
        needs=frozenset({"forget"}), cost="none", paper="–", dial="strength",
    )  # fmt: skip

    def __post_init__(self) -> None:
        if self.strength > 5000:
            raise ExpungeError("strength must be at most 5000.")

    def apply(self, model: nn.Module, job: Job) -> nn.Module:
        Damping.asked.append(self.strength)
        if self.strength > 1000:
            raise Diverged("too much")
        with torch.no_grad():
            last = [m for m in model.modules() if isinstance(m, nn.Linear)][-1]
            last.bias[3] -= self.strength
        job.log.notes.append(f"Lowered by {self.strength:g}.")
        job.log.facts["lowered"] = job.made["lowered"] = self.strength
        job.log.stopped = "" if self.strength > 2 else "step 1: weak"
        return model


@pytest.fixture(autouse=True)
def _asked():
    Damping.asked.clear()


def searched(model, request, method, **more):
    given = {key: more.pop(key) for key in ("unseen", "recipe", "seed") if key in more}
    return ex.unlearn(model, request, Search(of=method, **more), **given)


# -- the dial --------------------------------------------------------------------------------------------------------


def test_the_dial_goes_up_until_it_is_enough_and_then_by_halves(mlp, three, test):
    result = searched(mlp, three, Damping(strength=0.1), unseen=test, tries=8, factor=10.0, enough=0.0)
    first = Damping.asked[:4]
    np.testing.assert_allclose(first[:3], [0.1, 1.0, 10.0])
    weak = max(v for v, t in zip(Damping.asked, result.log.facts["search"]["tried"]) if t.get("forget", 0) > 1)
    strong = [v for v, t in zip(Damping.asked, result.log.facts["search"]["tried"]) if t.get("forget", 100) <= 1]
    for i in range(1, len(Damping.asked)):  # every later value is the geometric middle of two earlier ones, or a step
        value, before = Damping.asked[i], Damping.asked[:i]
        middles = [math.sqrt(a * b) for a in before for b in before]
        steps = [b * 10 for b in before] + [b / 10 for b in before]
        assert any(math.isclose(value, m) for m in middles + steps)
    assert min(strong) / weak < 10
    assert result.log.facts["search"]["value"] in strong


def test_what_is_said_of_the_result_is_said_of_the_best_try_alone(mlp, three, test):
    result = searched(mlp, three, Damping(strength=1.0), unseen=test, enough=0.0)
    best = result.log.facts["search"]["value"]
    assert len(Damping.asked) > 2
    assert best not in (Damping.asked[0], Damping.asked[-1])
    assert result.log.facts["lowered"] == result.made["lowered"] == best
    assert [note for note in result.log.notes if note.startswith("Lowered")] == [f"Lowered by {best:g}."]
    assert not result.log.stopped


def test_too_strong_a_start_is_turned_down_and_a_divergence_counts_as_too_strong(mlp, three, test):
    result = searched(mlp, three, Damping(strength=4000.0), unseen=test, factor=10.0, tries=3, enough=0.0)
    np.testing.assert_allclose(Damping.asked, [4000.0, 400.0, 40.0])
    tried = result.log.facts["search"]["tried"]
    assert tried[0]["failed"]
    assert "distance" in tried[1]
    up = searched(mlp, three, Damping(strength=0.01), unseen=test, factor=1e6, tries=2, enough=0.0)
    assert up.log.facts["search"]["tried"][1]["failed"]  # 10,000 is refused by the method itself
    with pytest.raises(Diverged, match="at every value of strength"):
        searched(mlp, three, Damping(strength=4000.0), unseen=test, factor=1.5, tries=2)


class Gentle(Damping):
    """The same, said the other way round."""

    card = replace(Damping.card, dial_rises=False)


def turned(dial: Dial, answers, factor: float = 3.0) -> list[float]:
    """The values of a dial whose results are answered so; `answers` is a function of a value, or a list."""
    values = dial.values(factor)
    found, value = [], next(values)
    for i in range(40):
        found.append(value)
        try:
            value = values.send(answers(value) if callable(answers) else answers[i])
        except (StopIteration, IndexError):
            return found
    raise AssertionError("it does not end")


def test_a_dial_that_falls_is_turned_the_other_way_and_a_whole_number_stays_one():
    assert turned(Dial(Gentle(strength=9.0)), ["weak", "weak"]) == [9.0, 3.0, 1.0]
    whole = Dial(FineTune(epochs=4), "epochs")
    # there is nothing between 7 and 8
    assert turned(whole, ["weak", "strong", "weak", "strong", "strong"]) == [4, 12, 7, 9, 8]


def test_naming_the_dial_of_the_card_does_not_turn_it_round():
    for dial in ("", "alpha"):
        assert turned(Dial(SSD(), dial), ["weak"]) == [3.0, 1.0]
    assert turned(Dial(SSD(), "dampening"), ["weak"]) == [1.0, 3.0]  # of other fields more is taken to forget more
    assert turned(Dial(SSD().then(FineTune()), "0.alpha"), ["weak"]) == [3.0, 1.0]


def test_a_value_that_is_refused_is_a_bound_on_the_side_that_the_dial_was_moving_to():
    def share(value: float) -> str:  # as NegGrad+ has it: up to 1, and weak only above 0.98
        return "refused" if value > 1 else "weak" if value > 0.98 else "strong"

    values = turned(Dial(NegGradPlus(lr=0.5, cap=None)), share)
    np.testing.assert_allclose(values[:3], [0.9, 2.7, math.sqrt(0.9 * 2.7)])
    for i in range(2, len(values)):  # each lies between the last one that was not refused and the least that was
        below = max(v for v in values[:i] if share(v) == "strong")
        above = min(v for v in values[:i] if share(v) != "strong")
        assert values[i] == pytest.approx(math.sqrt(below * above))
    assert 0.9 < min(v for v in values[1:]) <= 1
    assert 0.97 < max(v for v in values if v <= 1) <= 1
    assert max(values[-2:]) < 1.02 * min(values[-2:])  # it ends where nothing is left in between

    upwards = turned(Dial(GradientAscent(lr=1.0)), lambda v: "refused" if v > 2 else "weak")
    np.testing.assert_allclose(upwards[:4], [1, 3, math.sqrt(3), math.sqrt(math.sqrt(3) * 3)])
    assert all(v <= 3 for v in upwards)
    between = ["weak", "strong", "refused"]
    assert len(turned(Dial(GradientAscent(lr=1.0)), between)) == 3  # no side to go on
    assert turned(Dial(GradientAscent(lr=1.0)), ["refused"]) == [1.0]


def test_values_that_are_refused_are_no_tries_and_a_strong_start_finds_what_is_left(mlp, three, test):
    """A share that falls, and whose start is too strong: what is left of the range is from 0.7 to 1."""
    start = NegGradPlus(lr=0.5, cap=None, clip_norm=None, alpha=0.7)
    result = searched(mlp, three, start, unseen=test, tries=3, enough=0.0)
    tried = result.log.facts["search"]["tried"]
    assert sum("refused" not in t.get("failed", "") for t in tried) == 3
    assert any("alpha must be from 0 to 1; got 2." in t.get("failed", "") for t in tried)
    applied = [t["value"] for t in tried if "refused" not in t.get("failed", "")]
    assert all(0.7 <= v <= 1 for v in applied)
    assert len(set(applied)) == 3


def test_what_the_model_does_not_allow_is_refused_too(mlp, three, test):
    """Of an MLP of two layers, no three can be begun again."""
    result = searched(mlp, three, LastLayers(k=1, epochs=1, lr=1e-6, start="tuned"), unseen=test, enough=0.0)
    tried = result.log.facts["search"]["tried"]
    assert [t["value"] for t in tried] == [1, 3, 2]
    assert "its last 3" in tried[1]["failed"]
    assert "distance" in tried[2]
    assert "the best of 2 by" in result.log.notes[0]


def test_a_start_that_does_not_serve_is_told_as_it_is(mlp, three, test):
    with pytest.raises(ExpungeError, match="its last 9") as caught:
        searched(mlp, three, LastLayers(k=9), unseen=test)
    assert not isinstance(caught.value, Diverged)


def test_all_divergences_say_which_way_to_go(mlp, three):
    with pytest.raises(Diverged, match="at every value of strength; lower it"):
        searched(mlp, three, Damping(strength=4000.0), factor=1.5, tries=2)
    with pytest.raises(Diverged, match="at every value of strength; raise it"):
        searched(mlp, three, Gentle(strength=2000.0), factor=1.5, tries=2)


def test_a_step_of_a_chain_is_turned(mlp, three, test):
    chain = Damping(strength=0.1).then(FineTune(epochs=1, lr=1e-4))
    result = searched(mlp, three, chain, dial="0.strength", unseen=test, factor=10.0, tries=3, enough=0.0)
    np.testing.assert_allclose(Damping.asked, [0.1, 1.0, 10.0])
    assert result.log.facts["search"]["dial"] == "0.strength"
    second = searched(mlp, three, chain, dial="1.lr", unseen=test, tries=2, enough=0.0)
    values = [t["value"] for t in second.log.facts["search"]["tried"]]
    np.testing.assert_allclose(values, [1e-4, 3e-4])
    asked = registry.from_config(
        {"name": "search", "dial": "1.lr", "of": {"name": "chain", "steps": ["gradient_ascent", "finetune"]}}
    )
    assert asked == Search(of=GradientAscent().then(FineTune()), dial="1.lr")
    assert registry.from_config(asked.to_config()) == asked
    assert [m.name for m in asked.within] == ["search", "chain", "gradient_ascent", "finetune"]


def test_it_stops_as_soon_as_a_result_is_near_enough(mlp, three, test):
    result = searched(mlp, three, Damping(strength=50.0), unseen=test, enough=5.0)
    assert len(Damping.asked) == 1
    assert result.log.facts["search"]["tried"][0]["distance"] <= 5


# -- the rule --------------------------------------------------------------------------------------------------------


def test_the_threshold_tells_members_from_others_best():
    draws = np.random.default_rng(0)
    members, others = draws.beta(8, 1, 300).round(2), draws.beta(3, 1, 200).round(2)  # with ties
    false, true, limits = roc_curve(np.repeat([1, 0], [300, 200]), np.concatenate([members, others]))
    got = threshold(torch.tensor(members), torch.tensor(others))
    reached = (members >= got).mean() - (others >= got).mean()
    assert reached == pytest.approx((true - false).max())
    assert got in limits


def test_the_distance_is_what_the_documentation_says(mlp, three, train, test):
    result = searched(mlp, three, Damping(strength=3.0), unseen=test, tries=1, sample=10_000)
    told = result.log.facts["search"]["tried"][0]
    kept = torch.from_numpy(np.flatnonzero(test.y.numpy() != 3))
    after = {
        "retain": 100 * accuracy(result.model, train, three.keep),
        "forget": 100 * accuracy(result.model, train, three.forget),
        "unseen": 100 * accuracy(result.model, test, kept),
    }
    before = 100 * accuracy(mlp.eval(), train, three.keep), 0.0, 100 * accuracy(mlp, test, kept)
    assert {k: told[k] for k in after} == pytest.approx(after, abs=0.01)
    assert told["distance"] == pytest.approx(np.mean(np.abs(np.array([*after.values()]) - before)), abs=0.002)


def test_it_finds_a_strength_where_the_given_one_does_nothing(net, three, test, train):
    idle = NegGradPlus(lr=1e-5, epochs=1)
    nothing = ex.unlearn(net, three, idle)
    assert accuracy(nothing.model, train, three.forget) > 0.9
    result = searched(net, three, idle, unseen=test, tries=8, factor=10.0, dial="lr")
    assert accuracy(result.model, train, three.forget) < 0.3
    assert accuracy(result.model, train, three.keep) > 0.9
    assert result.log.steps == sum(1 for _ in result.log.facts["search"]["tried"]) * nothing.log.steps
    assert "the validation rule" in " ".join(result.log.notes)


def test_samples_are_made_to_look_like_unseen_rows(train, test):
    recipe = ex.Recipe(model={"name": "mlp", "hidden": [64]}, epochs=40, lr=0.1, batch_size=64, weight_decay=0.0)
    few = train.take(torch.arange(300))
    model = recipe(few)
    request = Request(few, fraction=0.2, seed=0)
    held, judged = test.take(torch.arange(180)), test.take(torch.arange(180, 359))
    method = GradientAscent(lr=1e-4, epochs=2, batch_size=16, clip_norm=None)
    result = searched(model, request, method, unseen=held, tries=10, enough=0.0)
    tried = result.log.facts["search"]["tried"]
    assert tried[0]["forget"] > tried[0]["unseen"] + 3
    chosen = next(t for t in tried if t["value"] == result.log.facts["search"]["value"])
    assert chosen["distance"] == min(t.get("distance", math.inf) for t in tried) < tried[0]["distance"]
    assert accuracy(result.model, judged) > accuracy(model.eval(), judged) - 0.05


def test_an_oracle_is_said_to_be_one(mlp, three, test, mlp_recipe):
    search = Search(of=Damping(strength=3.0), select="oracle_gap", tries=2)
    assert str(search) == "damping (tuned on retraining)"
    assert str(Search(of=FineTune())) == "finetune (searched)"
    with pytest.raises(ExpungeError, match=r"search by oracle_gap needs to know how .*recipe="):
        ex.unlearn(mlp, three, search, unseen=test)
    result = ex.unlearn(mlp, three, search, unseen=test, recipe=mlp_recipe)
    assert any("oracle" in note for note in result.log.notes)
    assert result.log.facts["search"]["select"] == "oracle_gap"


# -- failure paths ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "search needs a method"),
        ({"of": Original()}, "original has no dial on its card; .* above 0. It has none, so it cannot be searched"),
        ({"of": Retrain()}, "retrain has no dial on its card; .* above 0. It has none, so it cannot be searched"),
        ({"of": FineTune(), "dial": "lrr"}, "dial must be a field of finetune .* There are: .*epochs, .*lr, "),
        ({"of": FineTune(), "dial": "optimizer"}, "dial must be a field of finetune that is a number"),
        ({"of": FineTune(weight_decay=0.0), "dial": "weight_decay"}, "a number above 0"),
        ({"of": FineTune(), "dial": "0.lr"}, "dial must be a field of finetune"),
        (
            {"of": FineTune().then(FineTune())},
            "dial of a chain is the number of a step, 0 to 1, .*got None",
        ),
        ({"of": FineTune().then(FineTune()), "dial": "2.lr"}, "a step, 0 to 1, .*got '2.lr'"),
        ({"of": FineTune().then(FineTune()), "dial": "lr"}, "a step, 0 to 1, .*got 'lr'"),
        ({"of": FineTune().then(FineTune()), "dial": "-1.lr"}, "a step, 0 to 1, .*got '-1.lr'"),
        ({"of": FineTune().then(FineTune()), "dial": "1.lrr"}, "dial must be a field of finetune .*got '1.lrr'"),
        ({"of": FineTune().then(Original()), "dial": "1.lr"}, "dial must be a field of original"),
        ({"of": FineTune(), "tries": 0}, "tries must be 1 or more"),
        ({"of": FineTune(), "factor": 1.0}, "factor must be above 1"),
        ({"of": FineTune(), "select": "luck"}, "select must be validation or oracle_gap"),
        ({"of": FineTune(), "sample": 0}, "sample must be 1 or more"),
    ],
)
def test_what_cannot_be_searched_is_refused(fields, said):
    with pytest.raises(ExpungeError, match=said):
        Search(**fields)


def test_samples_need_unseen_rows(mlp, train):
    with pytest.raises(ExpungeError, match="search among samples needs rows that the model was never trained on"):
        ex.unlearn(mlp, Request(train, ids=[1, 2]), Search(of=FineTune()))


@pytest.mark.parametrize("empty", [True, False])
def test_samples_need_unseen_rows_of_classes_that_stay(empty, mlp, train, test):
    """Without such rows the rule would compare with nothing, and drive what is right on forgotten rows to 0."""
    first = ex.unlearn(mlp, Request(train, classes=[3]), Damping(strength=50.0))  # so that 3 is gone
    request = Request(train, ids=train.ids[(train.y == 5).numpy()][:20])
    unseen = test.take(torch.arange(0) if empty else torch.from_numpy(np.flatnonzero(test.y.numpy() == 3)))
    Damping.asked.clear()
    told = "unseen has no rows" if empty else r"search: unseen \(.*\) holds no row of a class that stays"
    with pytest.raises(ExpungeError, match=told):
        searched(first.model, request, Damping(), unseen=unseen)
    assert Damping.asked == []
    assert searched(first.model, request, Damping(), unseen=test, tries=1).log.facts["search"]["tried"]


def test_unseen_rows_that_the_model_does_not_take_are_refused(mlp, train):
    request = Request(train, fraction=0.1, seed=0)
    with pytest.raises(ExpungeError, match=r"search: The model does not accept inputs of shape \(1, 9, 9\) \(unseen"):
        searched(mlp, request, Damping(), unseen=(torch.rand(5, 1, 9, 9), torch.arange(5)))
    assert Damping.asked == []


def test_a_method_inside_that_is_wrong_is_told_and_not_missed_as_well():
    for config, told in (
        ({"name": "search", "of": {"name": "salun", "keep": 3}, "triess": 2}, "keep must be above 0 and at most 1"),
        ({"name": "chain", "steps": [{"name": "salun", "keep": 3}]}, "keep must be above 0 and at most 1"),
    ):
        with pytest.raises(ExpungeError, match=told) as caught:
            registry.from_config(config)
        assert not any("needs" in problem for problem in caught.value.problems)
        assert ("triess" in str(caught.value)) == ("triess" in config)  # what else is wrong is told with it


def test_what_every_try_has_to_say_is_said_once(train, test):
    """A request for one row: every try meets BatchNorm with one value."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 8), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 10))
    request = Request(train, ids=train.ids[:1])
    result = searched(model, request, GradientAscent(lr=1e-3, epochs=1), unseen=test, tries=3, enough=0.0)
    assert sum("distance" in t for t in result.log.facts["search"]["tried"]) > 1
    assert sum("batches were one row" in note for note in result.log.notes) == 1


def test_it_is_made_from_plain_data():
    made = registry.from_config({"name": "search", "of": {"name": "finetune", "lr": 0.2}, "tries": 3})
    assert made == Search(of=FineTune(lr=0.2), tries=3)
    assert registry.from_config(made.to_config()) == made
    with pytest.raises(ExpungeError, match="finetune has no field 'lrr'"):
        registry.from_config({"name": "search", "of": {"name": "finetune", "lrr": 0.2}})
    with pytest.raises(ExpungeError, match="a method is given by name"):
        registry.from_config({"name": "search", "of": 3})


def test_the_same_seed_gives_the_same_bits(mlp, three):
    method = FineTune(epochs=1, lr=0.01)
    first, again = (searched(copy.deepcopy(mlp), three, method, tries=2, seed=4) for _ in range(2))
    assert bits(first.model) == bits(again.model)
