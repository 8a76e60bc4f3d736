"""Retraining: the recipe without the forgotten rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import expunge as ex
from expunge import ExpungeError, own_recipe
from kit import Recording, bits


def test_it_is_the_recipe_on_the_rows_that_are_kept(train, mlp, mlp_recipe, three):
    result = ex.unlearn(mlp, three, "retrain", recipe=mlp_recipe, seed=4)
    kept = train.ids[train.y.numpy() != 3]
    assert bits(result.model) == bits(mlp_recipe(train, ids=kept, seed=4))
    assert result.log.examples == len(kept) * mlp_recipe.epochs


def test_gone_rows_do_not_come_back(train, mlp, mlp_recipe):
    spied = Recording.of(train)
    once = ex.unlearn(mlp, ex.Request(spied, classes=[3]), "gradient_ascent", epochs=1).model
    spied.seen.clear()
    ex.unlearn(once, ex.Request(spied, classes=[4]), "retrain", recipe=mlp_recipe)
    rows = [i for i in spied.seen if i > 1]
    assert rows
    assert not np.isin(train.y[rows].numpy(), [3, 4]).any()


def test_a_recipe_of_ones_own(train, mlp, three):
    def mine(dataset, ids, seed):
        assert not {3} & set(dataset.y[dataset.positions(ids)].tolist())
        model = ex.models.build("mlp", channels=1, size=8, classes=10, hidden=[32])
        nn.init.constant_(model.head.bias, seed)
        return model

    result = ex.unlearn(mlp, three, "retrain", recipe=own_recipe(mine), seed=7)
    assert torch.equal(result.model.head.bias.detach(), torch.full((10,), 7.0))


def test_a_recipe_of_another_architecture_is_refused_before_it_trains(train, net, mlp_recipe):
    spied = Recording.of(train)
    request = ex.Request(spied, classes=[3])
    spied.seen.clear()
    with pytest.raises(ExpungeError, match=r"recipe's model lacks features\.0\.weight"):
        ex.unlearn(net, request, "retrain", recipe=mlp_recipe)
    assert not [i for i in spied.seen if i > 1]


def test_an_own_recipe_that_returns_another_architecture_is_refused(net, three):
    other = own_recipe(lambda dataset, ids, seed: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
    with pytest.raises(ExpungeError, match="recipe's model"):
        ex.unlearn(net, three, "retrain", recipe=other)


def test_without_a_recipe_the_methods_that_work_are_named(mlp, three):
    with pytest.raises(ExpungeError, match=r"give recipe=(.|\n)*finetune"):
        ex.unlearn(mlp, three, "retrain")
