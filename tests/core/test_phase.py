"""Term and Phase: schedules, the steps of an epoch, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from expunge import ExpungeError
from expunge.phase import Phase, Term, check_parts

PARTS = {"a": torch.arange(100, 203), "b": torch.arange(30)}


def phase(**fields) -> Phase:
    return Phase(**{"terms": (Term("a"), Term("b")), "epochs": 1, "lr": 0.1, "batch_size": 16, **fields})


def plan(p: Phase, seed: int = 0) -> list:
    return list(p.plan(PARTS, torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        ("constant", [1, 1, 1, 1]),
        ("cosine", [1, (1 + math.sqrt(0.5)) / 2, 0.5, 0]),
        ("one_cycle", [0.04, 1, 0.75, 0]),  # after the top a third of the way down: (1 + cos 60°) / 2
    ],
)
def test_schedules_at_the_quarters(schedule, values):
    p = phase(schedule=schedule)
    np.testing.assert_allclose([p.rate(t) for t in (0, 0.25, 0.5, 1)], values, atol=1e-12)


def test_one_cycle_rises_and_falls_once_without_a_jump():
    p = phase(schedule="one_cycle")
    rates = np.array([p.rate(t) for t in np.linspace(0, 1, 2001)])
    assert np.abs(np.diff(rates)).max() < 0.003
    signs = np.sign(np.diff(rates))
    assert (np.diff(signs) != 0).sum() == 1
    assert rates.max() == pytest.approx(1, abs=1e-6)


def test_together_takes_a_batch_of_each_and_begins_the_shorter_part_again():
    steps = plan(phase())
    assert len(steps) == phase().steps_per_epoch(PARTS) == math.ceil(103 / 16)
    assert all([k for k, _ in picks] == [0, 1] for picks in steps)
    longer = torch.cat([picks[0][1] for picks in steps])
    assert sorted(longer.tolist()) == PARTS["a"].tolist()
    shorter = [picks[1][1] for picks in steps]  # two batches make a pass over b
    for i in range(0, 6, 2):
        assert sorted(torch.cat(shorter[i : i + 2]).tolist()) == list(range(30))
    assert not torch.equal(torch.cat(shorter[:2]), torch.cat(shorter[2:4]))  # in another order each time


def test_in_turn_takes_all_of_one_and_then_all_of_the_other():
    steps = plan(phase(mix="in_turn"))
    assert len(steps) == phase(mix="in_turn").steps_per_epoch(PARTS) == 7 + 2
    assert [picks[0][0] for picks in steps] == [0] * 7 + [1] * 2
    assert all(len(picks) == 1 for picks in steps)
    assert sorted(torch.cat([p[0][1] for p in steps[:7]]).tolist()) == PARTS["a"].tolist()
    assert sorted(torch.cat([p[0][1] for p in steps[7:]]).tolist()) == PARTS["b"].tolist()


def test_shuffled_covers_every_row_of_every_term_once():
    steps = plan(phase(mix="shuffled"))
    assert len(steps) == phase(mix="shuffled").steps_per_epoch(PARTS) == math.ceil(133 / 16)
    for k, part in enumerate(PARTS.values()):
        rows = torch.cat([index for picks in steps for number, index in picks if number == k])
        assert sorted(rows.tolist()) == part.tolist()
    assert sum(len(picks) == 2 for picks in steps) > 5  # mixed, not one after the other


def test_a_row_that_two_terms_share_is_shown_for_each():
    p = phase(terms=(Term("b"), Term("b", -1)), mix="shuffled")
    rows = torch.cat([index for picks in p.plan(PARTS, torch.Generator()) for _, index in picks])
    assert np.bincount(rows.numpy()).tolist() == [2] * 30


@pytest.mark.parametrize("mix", ["together", "in_turn", "shuffled"])
def test_batches_are_nearly_equal_and_examples_are_counted(mix):
    p = phase(mix=mix)
    sizes = [sum(len(i) for _, i in picks) for picks in plan(p)]
    per_term = [len(i) for picks in plan(p) for k, i in picks if k == 0]
    assert max(per_term) <= 16
    if mix != "shuffled":
        assert max(per_term) - min(per_term) <= 1
    assert p.examples_per_epoch(PARTS) == sum(sizes)


@pytest.mark.parametrize("mix", ["together", "in_turn", "shuffled"])
def test_the_plan_follows_its_generator_alone(mix):
    def flat(seed: int) -> list:
        return [(k, i.tolist()) for picks in plan(phase(mix=mix), seed) for k, i in picks]

    assert flat(0) == flat(0)
    assert flat(0) != flat(1)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_the_optimiser_has_the_phases_settings(name):
    p = phase(optimizer=name, weight_decay=0.03, momentum=0.7)
    optimizer = p.make_optimizer([torch.nn.Parameter(torch.zeros(2))])
    assert type(optimizer).__name__.lower() == name
    assert optimizer.defaults["lr"] == 0.1
    assert optimizer.defaults["weight_decay"] == 0.03
    assert optimizer.defaults.get("momentum", 0.7) == 0.7


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"epochs": -1}, "epochs must be a whole number, 0 or more"),
        ({"epochs": 1.5}, "epochs"),
        ({"epochs": True}, "epochs"),
        ({"lr": 0}, "lr must be above 0"),
        ({"lr": math.nan}, "lr"),
        ({"lr": math.inf}, "lr"),
        ({"lr": "0.1"}, "lr"),
        ({"batch_size": 0}, "batch_size"),
        ({"momentum": 1}, "momentum"),
        ({"weight_decay": -1}, "weight_decay"),
        ({"optimizer": "adma"}, "Did you mean .*'adam'"),
        ({"schedule": "cosin"}, "Did you mean 'cosine'"),
        ({"mix": "shuffle"}, "Did you mean 'shuffled'"),
    ],
)
def test_wrong_settings_are_refused(fields, words):
    with pytest.raises(ExpungeError, match=words):
        phase(**fields)


def test_all_wrong_settings_are_told_at_once():
    with pytest.raises(ExpungeError) as caught:
        phase(epochs=-1, lr=-1, momentum=2, optimizer="x")
    assert len(str(caught.value).splitlines()) == 4


def test_terms_without_rows_are_refused_all_at_once():
    with pytest.raises(ExpungeError, match=r"'retian', which does not exist(.|\n)*'none', which is empty"):
        check_parts([phase(terms=(Term("retian"), Term("none")))], {**PARTS, "none": torch.arange(0)})
