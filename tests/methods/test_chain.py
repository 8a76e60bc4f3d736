"""Chains: methods one after the other."""

from __future__ import annotations

import pytest

import expunge as ex
from expunge import ExpungeError, registry
from expunge.methods.chain import Chain
from expunge.methods.finetune import FineTune
from expunge.methods.gradient_ascent import GradientAscent
from expunge.methods.last_layers import LastLayers
from expunge.methods.retrain import Retrain
from kit import bits

UP, TUNE, LAST = GradientAscent(lr=0.01), FineTune(epochs=1), LastLayers(epochs=1)


def test_the_steps_are_applied_in_order(mlp, three):
    chained = ex.unlearn(mlp, three, UP.then(TUNE), seed=3)
    first = ex.unlearn(mlp, three, UP, seed=3).model
    del first._expunge_gone  # the second step of a chain serves the same request
    assert bits(chained.model) == bits(ex.unlearn(first, three, TUNE, seed=3).model)
    assert bits(chained.model) != bits(ex.unlearn(mlp, three, TUNE.then(UP), seed=3).model)
    assert chained.log.steps == 5 + 6
    assert str(chained.method) == "gradient_ascent → finetune"


def test_chains_of_chains_are_flat():
    flat = Chain(steps=(UP, TUNE, LAST))
    assert UP.then(TUNE, LAST) == flat == UP.then(TUNE).then(LAST) == UP.then(TUNE.then(LAST))
    assert flat.steps == (UP, TUNE, LAST)


def test_chains_come_from_plain_data():
    config = {"name": "chain", "steps": [{"name": "gradient_ascent", "lr": 0.01}, {"name": "finetune", "epochs": 1}]}
    assert registry.from_config(config) == UP.then(TUNE)
    assert registry.from_config(UP.then(TUNE).to_config()) == UP.then(TUNE)


def test_a_chain_of_one_is_that_one(mlp, three):
    chained = ex.unlearn(mlp, three, Chain(steps=(TUNE,)))
    assert bits(chained.model) == bits(ex.unlearn(mlp, three, TUNE).model)


def test_the_problems_of_every_step_are_told_at_once(mlp, three):
    wrong = FineTune(region={"layers": "haed*"}).then(Retrain(), LastLayers(k=9))
    with pytest.raises(ExpungeError) as caught:
        ex.unlearn(mlp, three, wrong)
    text = str(caught.value)
    assert "haed" in text
    assert "retrain needs" in text
    assert "last 9" in text
