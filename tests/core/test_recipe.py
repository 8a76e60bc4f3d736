"""Recipe: how a model is trained, always to the same bits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from expunge import ExpungeError, Recipe, Rows, own_recipe
from expunge.descend import descend
from expunge.phase import Phase, Term
from expunge.recipe import as_recipe
from expunge.run import Run
from expunge.source import describe_function
from kit import Recording, accuracy, bits

SMALL = {"name": "mlp", "hidden": [8]}


def recipe(**fields) -> Recipe:
    return Recipe(**{"model": SMALL, "epochs": 1, **fields})


def test_it_trains_and_the_model_is_ready_to_use(train, test, mlp_recipe):
    model = mlp_recipe(train)
    assert not model.training
    assert accuracy(model, test) > 0.9


@pytest.mark.parametrize("model", [SMALL, {"name": "convnet", "width": 4, "depth": 2, "norm": "batch"}])
def test_same_seed_same_bits_whatever_the_global_state(model, train):
    made = []
    for i, seed in enumerate((0, 0, 1)):
        torch.manual_seed(i)
        state = torch.get_rng_state()
        made.append(bits(recipe(model=model, augment="crop_flip")(train, seed=seed)))
        assert torch.equal(torch.get_rng_state(), state)
    assert made[0] == made[1]
    assert made[0] != made[2]


def test_only_the_rows_with_the_ids_are_read(train):
    spied = Recording.of(train)
    ids = train.ids[[5, 900, 17, 44]]
    recipe(epochs=2)(spied, ids=ids)
    assert sorted(spied.seen) == sorted([5, 900, 17, 44] * 2)


def test_the_original_and_its_retraining_begin_with_the_same_weights(train):
    none = recipe(epochs=0)
    start = bits(none(train, seed=3))
    assert start == bits(none(train, ids=train.ids[:50], seed=3))
    assert start != bits(none(train, seed=4))


def test_data_may_be_a_pair_or_a_dataset():
    x, y = np.random.default_rng(0).random((20, 1, 8, 8)).astype(np.float32), np.arange(20) % 2
    dataset = torch.utils.data.TensorDataset(torch.from_numpy(x), torch.from_numpy(y))
    assert bits(recipe()((x, y))) == bits(recipe()(Rows(x, y))) == bits(recipe()(dataset))


def test_label_smoothing_is_that_of_torch(train):
    fields = {"lr": 1.0, "momentum": 0.0, "weight_decay": 0.0, "batch_size": 2000, "schedule": "constant"}
    model = recipe(epochs=0)(train)
    loss = nn.functional.cross_entropy(model(train.x(torch.arange(len(train)))), train.y, label_smoothing=0.3)
    expected = [p.detach() - g for p, g in zip(model.parameters(), torch.autograd.grad(loss, [*model.parameters()]))]
    trained = recipe(label_smoothing=0.3, **fields)(train)
    for p, q in zip(trained.parameters(), expected):
        torch.testing.assert_close(p.detach(), q, atol=2e-6, rtol=1e-4)


@pytest.mark.parametrize("augment", ["crop", "flip", "crop_flip"])
def test_augmentation_changes_the_outcome(augment, train):
    assert bits(recipe(augment=augment)(train)) != bits(recipe()(train))


def test_a_model_may_be_built_by_a_function_of_the_rows(train):
    def build(rows: Rows) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(rows.shape)), rows.num_classes))

    one, two = (recipe(model=build)(train, seed=7) for _ in range(2))
    assert isinstance(one, nn.Sequential)
    assert bits(one) == bits(two)


# -- a recipe of one's own -------------------------------------------------------------------------------------------


def test_an_own_recipe_gets_the_data_the_ids_and_the_seed(train):
    seen = {}

    def mine(dataset, ids, seed):
        part = dataset.take(dataset.positions(ids))
        seen.update(rows=dataset, ids=ids.tolist(), seed=seed, labels=part.y.tolist())
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        model[1].weight.data.normal_()
        return model.train()

    wanted = train.ids[[1, 2, 3]].tolist()
    torch.manual_seed(0)
    state = torch.get_rng_state()
    model = own_recipe(mine)(train, ids=[*wanted[::-1], wanted[0]], seed=9)  # a set: no order, and none counts twice
    assert seen == {"rows": train, "ids": wanted, "seed": 9, "labels": train.y[[1, 2, 3]].tolist()}
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.training
    torch.manual_seed(1)
    assert bits(own_recipe(mine)(train, seed=9)) == bits(model)  # the global state is seeded for it
    assert bits(own_recipe(mine)(train, seed=8)) != bits(model)
    assert seen["ids"] == train.ids.tolist()


@pytest.mark.parametrize("wrong", [None, {"weight": 1}, (nn.Linear(1, 1), 0.5)])
def test_an_own_recipe_must_return_a_module(wrong, train):
    with pytest.raises(ExpungeError, match=rf"must return a torch.nn.Module; it returned {type(wrong).__name__}"):
        own_recipe(lambda dataset, ids, seed: wrong)(train)


def test_functions_become_recipes_and_other_things_do_not():
    standard = recipe()
    assert as_recipe(standard) is standard

    def train(dataset, ids, seed=0, *, rate=0.1): ...

    assert as_recipe(own := own_recipe(train)) is own
    assert as_recipe(train).function is train
    assert as_recipe(max).function is max  # does not tell what it takes


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (3, "got 3"),
        ({"epochs": 3}, "got {'epochs': 3}"),
        (
            lambda d: None,
            r"got <lambda>\(d\), which cannot be called with \(dataset, ids, seed\): too many",
        ),
        (lambda dataset, ids, seed, rate: None, "missing a required argument: 'rate'"),
        (nn.Linear(2, 2), "got a module, Linear"),
    ],
)
@pytest.mark.parametrize("through", [own_recipe, as_recipe])
def test_what_is_no_recipe_is_refused_when_it_is_given(wrong, told, through):
    with pytest.raises(ExpungeError, match=rf"A recipe is .*\(dataset, ids, seed\) -> model; .*{told}"):
        through(wrong)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"model": nn.Linear(64, 10)}, "a function of the rows that makes one; got a module, Linear"),
        ({"model": lambda: nn.Linear(64, 10)}, r"got <lambda>\(\), which cannot be called with \(rows\)"),
        ({"model": 5}, "got 5"),
        ({"epoch": 2}, "Recipe has no field 'epoch'. Did you mean 'epochs'"),
    ],
)
def test_models_that_cannot_be_made_anew_and_unknown_fields_are_told_before_training(fields, told):
    with pytest.raises(ExpungeError, match=told):
        Recipe(**fields)


def test_ids_are_a_set(train):
    ids = train.ids[[5, 900, 17, 44]].tolist()
    assert bits(recipe()(train, ids=[*ids[::-1], ids[2], ids[2]])) == bits(recipe()(train, ids=ids))
    assert bits(recipe()(train, ids=ids[:3])) != bits(recipe()(train, ids=ids))


@pytest.mark.parametrize("seed", [1.0, -1, True, "1"])
def test_wrong_seeds_are_refused(seed, train):
    for made in (recipe(), own_recipe(lambda dataset, ids, seed: nn.Linear(64, 10))):
        with pytest.raises(ExpungeError, match="seed must be a whole number"):
            made(train, seed=seed)


def test_a_seed_of_numpy_is_its_number(train):
    assert bits(recipe()(train, seed=np.int64(1))) == bits(recipe()(train, seed=1))


def test_a_functions_description_changes_with_its_source():
    def make(body: str):
        def one():
            return 1

        def two():
            return 2

        return {"one": one, "two": two}[body]

    assert describe_function(make("one")) == describe_function(make("one"))
    assert describe_function(make("one")).partition("#")[2] != describe_function(make("two")).partition("#")[2]


def test_the_description_names_every_field():
    base = recipe().describe()
    changes = {
        "model": "lenet",
        "epochs": 2,
        "lr": 0.2,
        "batch_size": 3,
        "optimizer": "adam",
        "momentum": 0.1,
        "weight_decay": 0.0,
        "schedule": "cosine",
        "label_smoothing": 0.1,
        "augment": "crop",
        "precision": "float32",
        "together": "class",
        "diffusion": {"guidance": 1.0},
    }
    # of these, one matters only with `together`, the other changes no bit of the training
    assert set(changes) | {"groups_per_batch", "ledger"} == set(Recipe.__dataclass_fields__)
    assert all(recipe(**{name: value}).describe() != base for name, value in changes.items())


# -- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"epochs": -1}, "epochs"),
        ({"lr": -1}, "lr"),
        ({"optimizer": "sdg"}, "Did you mean 'sgd'"),
        ({"schedule": "one_cylce"}, "Did you mean 'one_cycle'"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"label_smoothing": "some"}, "label_smoothing"),
        ({"augment": "flop"}, "Did you mean 'flip'"),
        ({"precision": "float16"}, "precision"),
    ],
)
def test_wrong_fields_are_refused_at_once(fields, words):
    with pytest.raises(ExpungeError, match=words):
        recipe(**fields)


def test_ids_that_share_batches_are_read_once_whatever_holds_them(train):
    """A view and an iterator of ids, which can be neither copied nor read twice, say what a list of them says."""
    ids = train.ids[:3].tolist()
    wanted = recipe(together=ids)
    for together in (dict.fromkeys(ids).keys(), dict(enumerate(ids)).values(), iter(ids), (i for i in ids)):
        made = recipe(together=together)
        assert made.describe() == wanted.describe()
        assert torch.equal(made.grouping(train), wanted.grouping(train))


def test_a_module_in_place_of_a_model_is_refused_without_a_copy():
    class Uncopied(nn.Linear):
        def __deepcopy__(self, memo):
            raise AssertionError("it was copied")

    with pytest.raises(ExpungeError, match="model"):
        recipe(model=Uncopied(1, 1))


def test_all_wrong_fields_are_told_together():
    with pytest.raises(ExpungeError) as caught:
        recipe(epochs=-1, lr=0, augment="flop", precision="float8", label_smoothing=2)
    assert len(str(caught.value).splitlines()) == 5


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("lenett", "Did you mean 'lenet'"),
        ({"name": "mlp", "hiden": [3]}, "Did you mean 'hidden'"),
        ({"hidden": [3]}, "given by name"),
        (lambda rows: nn.Sequential(nn.Flatten(), nn.Linear(64, 7)), "7 outputs, but digits has 10 classes"),
        (lambda rows: nn.Linear(3, 10), "does not accept inputs"),
        (lambda rows: None, "Module"),
        (3, "model"),
    ],
)
def test_models_that_do_not_exist_or_fit_are_refused_before_training(model, words, train):
    spied = Recording.of(train)
    with pytest.raises(ExpungeError, match=words):
        recipe(model=model)(spied)
    assert not [i for i in spied.seen if i > 1]


@pytest.mark.parametrize(
    ("shape", "words"), [((1, 8, 6), "square images; those of data are 8 x 6"), ((12,), r"takes images")]
)
def test_data_that_the_named_models_cannot_take_is_refused(shape, words):
    rows = Rows(np.zeros((6, *shape), np.float32), [0, 1, 0, 1, 0, 1])
    with pytest.raises(ExpungeError, match=words):
        recipe()(rows)


def test_unknown_ids_are_refused(train):
    with pytest.raises(ExpungeError, match="not in digits"):
        recipe()(train, ids=[10**9])


def test_a_recipe_is_one_phase_of_the_loop(train):
    """What `descend` does with the same settings, from the same initial weights."""
    r = recipe(epochs=2, optimizer="adam", lr=0.01)
    model = recipe(epochs=0)(train)
    phase = Phase(terms=(Term("train"),), epochs=2, lr=0.01, batch_size=128, optimizer="adam", schedule="one_cycle")
    descend(model, train, {"train": torch.arange(len(train))}, r.task(train), [phase], Run())
    assert bits(r(train)) == bits(model)


def test_a_description_follows_captured_values_and_defaults():

    def maker(lr):
        def train(dataset, ids, seed, extra=lr):
            return (lr, extra)

        return train

    assert describe_function(maker(0.1)) == describe_function(maker(0.1))
    assert describe_function(maker(0.1)) != describe_function(maker(0.9))


def test_sparse_gradients_are_refused_in_words():
    class Bag(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.head = torch.nn.EmbeddingBag(20, 8, sparse=True), torch.nn.Linear(8, 3)

        def forward(self, x):
            return self.head(self.table(x))

    data = torch.randint(0, 20, (30, 6)), torch.arange(30) % 3
    with pytest.raises(ExpungeError, match=r"table gives sparse gradients, .* set its sparse to False"):
        recipe(model=lambda rows: Bag())(data)
