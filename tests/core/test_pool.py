"""Pool: a model is trained once for each part and seed, and trained anew when anything changes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import expunge as ex
from expunge import Recipe, Rows, own_recipe
from expunge.artifact import Store, TrainingCheckpoint
from expunge.pool import Pool
from expunge.run import Run
from kit import Recording, bits

RECIPE = Recipe(model={"name": "mlp", "hidden": [8]}, epochs=2)


@pytest.fixture
def spied(train: Rows) -> Recording:
    """Rows that tell how many of them training has read."""
    rows = Recording.of(train.take(torch.arange(200)))
    assert rows.shape == (1, 8, 8)  # asked once, remembered
    rows.seen.clear()
    return rows


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "store")


PART = torch.arange(100)


def trained(pool: Pool, index: Tensor = PART, seed: int = 0):
    return pool.train(index, Run(seed=seed))


def test_the_second_call_does_not_train(spied):
    pool = Pool(RECIPE, spied)
    first = trained(pool)
    assert len(spied.seen) == 200
    spied.seen.clear()
    assert trained(pool) is first
    assert trained(pool, PART.flip(0)) is first  # a part is a set
    assert not spied.seen
    assert first.examples == 200
    assert not first.cached


def test_another_pool_reads_what_the_store_has(spied, store):
    first = trained(Pool(RECIPE, spied, store))
    spied.seen.clear()
    again = trained(Pool(RECIPE, spied, Store(store.root)))
    assert not spied.seen
    assert bits(again.model) == bits(first.model)
    assert again.cached
    assert not again.model.training
    assert (again.seconds, again.examples) == (first.seconds, first.examples)
    assert again.seconds > 0


def test_it_is_the_recipes_own_model(spied, store):
    assert bits(trained(Pool(RECIPE, spied, store), seed=3).model) == bits(RECIPE(spied, ids=spied.ids[:100], seed=3))


def changed_data(rows: Rows) -> Rows:
    source = rows.source.clone()
    source[150, 0, 0, 0] ^= 1  # even outside the part: the scale may have come from it
    return Rows(source, rows.y, ids=rows.ids, classes=rows.classes, scale=rows.scale)


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: (rows, RECIPE, torch.arange(101), 0),
        lambda rows: (rows, RECIPE, PART, 1),
        lambda rows: (rows, replace(RECIPE, lr=0.06), PART, 0),
        lambda rows: (rows, replace(RECIPE, model={"name": "mlp", "hidden": [9]}), PART, 0),
        lambda rows: (rows, replace(RECIPE, augment="crop"), PART, 0),
        lambda rows: (changed_data(rows), RECIPE, PART, 0),
        lambda rows: (Rows(rows.source, rows.y.flip(0), ids=rows.ids, classes=rows.classes), RECIPE, PART, 0),
    ],
    ids=["ids", "seed", "rate", "model", "augment", "pixel", "labels"],
)
def test_whatever_changes_means_a_training_of_its_own(change, spied, store):
    trained(Pool(RECIPE, spied, store))
    rows, recipe, index, seed = change(spied)
    assert not trained(Pool(recipe, rows, store), index, seed).cached
    assert trained(Pool(recipe, rows, store), index, seed).cached


def test_a_run_that_overrides_the_recipe_means_a_training_of_its_own(spied, store):
    def made(pool, **run):
        return pool.train(PART, Run(seed=0, **run))

    pool = Pool(RECIPE, spied, store)
    plain = made(pool)
    assert bits(made(pool, augment="crop").model) != bits(plain.model)
    assert bits(made(Pool(RECIPE, spied, store)).model) == bits(plain.model)
    cropped = Pool(replace(RECIPE, augment="crop"), spied, store)
    made(cropped)
    assert made(cropped, augment="crop") is made(cropped)  # it says what the recipe says
    exact = Pool(replace(RECIPE, precision="float32"), spied, store)
    assert made(exact, precision="float32") is made(exact)
    assert made(exact, precision="bfloat16") is not made(exact)


def test_one_pool_keeps_seeds_and_parts_apart(spied):
    pool = Pool(RECIPE, spied)
    made = [trained(pool), trained(pool, seed=1), trained(pool, torch.arange(50))]
    assert len({str(bits(m.model)) for m in made}) == 3


def test_an_own_recipe_needs_a_model_of_the_right_shape_to_be_read_again(spied, store):
    calls = []

    def mine(dataset, ids, seed):
        calls.append(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

    like = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    like._expunge_gone = {"x": [1]}
    first = trained(Pool(own_recipe(mine), spied, store, like=like))
    again = trained(Pool(own_recipe(mine), spied, store, like=like))
    assert calls == [0]
    assert bits(again.model) == bits(first.model) != bits(like)
    assert again.model is not like
    assert not getattr(again.model, "_expunge_gone", {})  # it has forgotten nothing: it never knew


def test_without_one_the_first_model_it_trains_is_the_shape_of_the_others(spied, store):
    calls = []

    def mine(dataset, ids, seed):
        calls.append((len(ids), seed))
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

    def all_three():
        pool = Pool(own_recipe(mine), spied, store)
        return [trained(pool), trained(pool, torch.arange(50)), trained(pool, seed=1)]

    first, again = all_three(), all_three()
    assert calls == [(100, 0), (50, 0), (100, 1), (100, 0)]  # the fourth, in the second pool, for its shape
    assert [m.cached for m in again] == [False, True, True]
    assert [bits(m.model) for m in again[1:]] == [bits(m.model) for m in first[1:]]
    assert len({id(m.model) for m in again}) == 3


@pytest.mark.parametrize("name", ["tensors.safetensors", "about.json"])
def test_a_damaged_entry_is_named_and_made_anew(name, spied, store):
    first = trained(Pool(RECIPE, spied, store))
    path = next(store.root.glob(f"*/{name}"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.warns(UserWarning, match="damaged"):
        again = trained(Pool(RECIPE, spied, store))
    assert not again.cached
    assert bits(again.model) == bits(first.model)
    assert trained(Pool(RECIPE, spied, store)).cached


def test_an_interrupted_training_goes_on_where_it_was(spied, store, monkeypatch):
    recipe = replace(RECIPE, epochs=6)
    whole = trained(Pool(recipe, spied))
    monkeypatch.setattr(TrainingCheckpoint.__init__, "__defaults__", (0.0,))  # write after every epoch
    reads = []

    class Failing(Recording):
        def x(self, index_B):
            reads.append(len(index_B))
            if torch.is_grad_enabled() and len(index_B) > 2 and sum(n > 2 for n in reads) == 5:
                raise KeyboardInterrupt
            return super().x(index_B)

    with pytest.raises(KeyboardInterrupt):
        trained(Pool(recipe, Failing.of(spied), store))
    assert list(store.root.glob("*/unfinished.safetensors"))
    assert not list(store.root.glob("*/about.json"))
    spied.seen.clear()
    again = trained(Pool(recipe, spied, store))
    assert len(spied.seen) == 200  # the last two of six epochs over 100 rows
    assert bits(again.model) == bits(whole.model)
    assert again.examples == whole.examples == 600
    assert not list(store.root.glob("*/unfinished.safetensors"))


def test_retraining_is_made_once_and_kept(train, mlp, mlp_recipe, three, monkeypatch, tmp_path):
    monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path))
    first = ex.unlearn(mlp, three, "retrain", recipe=mlp_recipe)
    spied = Recording.of(train)
    request = ex.Request(spied, classes=[3])
    spied.seen.clear()
    again = ex.unlearn(mlp, request, "retrain", recipe=mlp_recipe)
    assert not [i for i in spied.seen if i > 1]
    assert bits(first.model) == bits(again.model)
    expected = mlp_recipe(train, ids=train.ids[np.asarray(train.y) != 3])
    assert bits(first.model) == bits(expected)
