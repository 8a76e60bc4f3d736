"""Batches that keep groups together: what each holds, how many a group is in, and how a recipe asks for them."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import hypergeom

from expunge import ExpungeError, Recipe, Rows
from expunge.batching import describe_together, expected_share, grouped, groups_of, shuffled
from expunge.errors import Problems
from expunge.experiment import from_dict
from expunge.phase import Phase, Term
from expunge.pool import Pool
from expunge.run import Run
from kit import accuracy, bits
from shell import SMALL

MLP = {"name": "mlp", "hidden": [32]}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def crowd(n: int, seed: int = 0) -> torch.Tensor:
    """Groups of 1 to 90 rows over two thirds of n rows, in random places; the rest is ungrouped."""
    random = np.random.default_rng(seed)
    group = np.repeat(np.arange(n), random.integers(1, 91, n))[:n]
    group[2 * n // 3 :] = -1
    return torch.from_numpy(random.permutation(group))


def recipe(**fields) -> Recipe:
    return Recipe(**{"model": MLP, "epochs": 3, "lr": 0.1, "batch_size": 64, **fields})


# -- the batches -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 63, 64, 65, 1000, 1438])
@pytest.mark.parametrize(("per_batch", "size"), [(1, 64), (3, 64), (5, 7), (64, 64), (1, 1)])
def test_every_row_is_in_one_batch_and_batches_are_nearly_equal(n, per_batch, size):
    batches = grouped(crowd(n), per_batch, size, generator())
    assert sorted(torch.cat(batches).tolist()) == list(range(n))
    sizes = [len(b) for b in batches]
    assert len(sizes) == math.ceil(n / size)
    assert max(sizes) <= size
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("per_batch", [1, 2, 3, 8])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_group_is_in_as_few_batches_as_promised(per_batch, seed):
    n, size = 5000, 128
    group = crowd(n, seed)
    e = n // per_batch // math.ceil(n / size)

    def beyond(batches) -> list[int]:
        """The groups in more batches than promised, counted one by one."""
        held = [{int(group[i]) for i in batch} for batch in batches]
        numbers, counts = np.unique(group[group >= 0].numpy(), return_counts=True)
        return [g for g, c in zip(numbers, counts) if sum(g in h for h in held) > math.ceil((c - 1) / e) + 1]

    assert not beyond(grouped(group, per_batch, size, generator(seed)))
    assert beyond(shuffled(n, size, generator(seed)))  # the control


def test_batches_mix_about_as_many_groups_as_asked():
    group = torch.arange(10).repeat_interleave(600)
    for per_batch in (1, 2, 3, 5):
        mixed = [len(group[batch].unique()) for batch in grouped(group, per_batch, 100, generator())]
        assert per_batch <= np.mean(mixed) < per_batch + 1
    assert np.mean([len(group[batch].unique()) for batch in shuffled(6000, 100, generator())]) > 9.9


def test_ungrouped_rows_are_spread_as_in_a_shuffle():
    """Batches as random draws: the number of marked rows has a hypergeometric spread."""
    group = torch.full((6000,), -1)
    group[:60] = 0
    marked = torch.arange(6000) % 4 == 1
    batches = grouped(group, 2, 100, generator())
    counts = np.array([int(marked[b[group[b] < 0]].sum()) for b in batches if (group[b] < 0).all()])
    expected = hypergeom(5940, int(marked[60:].sum()), 100)
    assert len(counts) >= 57
    assert abs(counts.mean() - expected.mean()) < 4 * expected.std() / math.sqrt(len(counts))
    assert 0.7 < counts.std() / expected.std() < 1.3


def test_steps_in_a_row_see_groups_from_all_over():
    group = torch.arange(10).repeat_interleave(600)

    def seen(labels: list[int]) -> float:
        return float(np.mean([len(set(labels[i : i + 10])) for i in range(len(labels) - 10)]))

    for seed in range(5):
        labels = [int(group[batch].mode().values) for batch in grouped(group, 1, 100, generator(seed))]
        assert seen(labels) > 8
        random = [labels[i] for i in torch.randperm(len(labels), generator=generator(seed)).tolist()]
        assert seen(random) < 7.5  # the control: ten of sixty hold 6.8 kinds on average
        assert seen(sorted(labels)) < 3


def test_order_follows_the_generator_alone():
    def flat(seed: int) -> list[list[int]]:
        return [b.tolist() for b in grouped(crowd(500), 2, 32, generator(seed))]

    torch.manual_seed(0)
    state = torch.get_rng_state()
    assert flat(0) == flat(0)
    assert flat(0) != flat(1)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("per_batch", [0, -1, 33])
def test_more_groups_than_rows_in_a_batch_are_refused(per_batch):
    with pytest.raises(ExpungeError, match=f"from 1 to the batch size, 32; got {per_batch}"):
        grouped(crowd(500), per_batch, 32, generator())


# -- in a phase --------------------------------------------------------------------------------------------------------


def planned(mix: str, seed: int, **fields) -> list[list[tuple[int, list[int]]]]:
    parts = {"a": torch.arange(100, 303), "b": torch.arange(40)}
    phase = Phase(terms=(Term("a"), Term("b")), epochs=1, lr=0.1, batch_size=16, mix=mix, **fields)  # type: ignore[arg-type]
    return [[(k, i.tolist()) for k, i in picks] for picks in phase.plan(parts, generator(seed))]


def test_without_groups_the_draws_are_one_permutation_cut():
    """The bits of trainings made before groups could be given."""
    parts, g = {"a": torch.arange(100, 303), "b": torch.arange(40)}, generator(7)
    expected = []
    for k, part in enumerate(parts.values()):
        cut = part[torch.randperm(len(part), generator=g)].tensor_split(math.ceil(len(part) / 16))
        expected += [[(k, batch.tolist())] for batch in cut]
    assert planned("in_turn", 7) == expected


@pytest.mark.parametrize("mix", ["together", "in_turn", "shuffled"])
def test_groups_stay_together_in_every_mix(mix):
    """Sixteen rows of a group in at most 3 of the steps that are full of its term; a shuffle spreads them over most."""
    group = torch.arange(303) // 16
    few, many = planned(mix, 0, groups=group, groups_per_batch=1), planned(mix, 0)
    holds = [[sum(any(i // 16 == 10 for i in rows) for _, rows in step) for step in plan] for plan in (few, many)]
    assert 1 <= sum(holds[0]) <= 3
    assert sum(holds[1]) >= 6
    shown = sorted(i for step in few for k, rows in step if k == 0 for i in rows)
    assert shown == list(range(100, 303))


# -- the share of steps --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "total", "batch", "share"),
    [
        (100, 53_969, 64, 0.112),  # of MNIST with 100 threes kept
        (6131, 60_000, 64, 0.999),  # a class of MNIST
        (500, 50_000, 64, 0.47),  # a class of CIFAR-100
        (500, 50_000, 8, 0.077),
        (600, 60_000, 128, 0.72),  # a random 1 %
    ],
)
def test_expected_shares_of_known_cases(n, total, batch, share):
    assert expected_share(n, total, batch) == pytest.approx(share, abs=0.005)


@pytest.mark.parametrize(("n", "total", "batch"), [(0, 10, 3), (1, 10, 3), (4, 10, 7), (10, 10, 1), (3, 10, 20)])
def test_expected_share_is_the_count_of_batches(n, total, batch):
    batch_ = min(batch, total)
    exact = 1 - Fraction(math.comb(total - n, batch_), math.comb(total, batch_))
    assert expected_share(n, total, batch) == pytest.approx(float(exact), abs=1e-15)


def test_expected_share_is_scipys_and_exact_where_it_is_tiny():
    for n, total, batch in ((37, 1000, 64), (800, 1000, 2), (5, 10**6, 128)):
        assert expected_share(n, total, batch) == pytest.approx(hypergeom(total, n, batch).sf(0), rel=1e-9)
    assert expected_share(1, 10**12, 1) == pytest.approx(1e-12, rel=1e-12)


def test_shuffled_batches_have_the_expected_share():
    rows = torch.arange(2000) < 30
    counted = np.mean([[bool(rows[b].any()) for b in shuffled(2000, 50, generator(s))] for s in range(50)])
    assert counted == pytest.approx(expected_share(30, 2000, 50), abs=0.02)  # 2,000 batches: a deviation of 0.011


@pytest.mark.parametrize("wrong", [(-1, 10, 2), (11, 10, 2), (0, 0, 2), (1, 10, 0)])
def test_shares_of_nothing_are_refused(wrong):
    with pytest.raises(ExpungeError, match="0 <= touched <= total"):
        expected_share(*wrong)


# -- what a recipe takes ---------------------------------------------------------------------------------------------


def test_a_mapping_and_a_file_are_one_grouping(tmp_path: Path, train: Rows):
    ids = train.ids[[7, 3, 900, 12]].tolist()
    owner = dict(zip(ids, ["ann", "bob", "ann", "cy"]))
    path = tmp_path / "users.csv"
    path.write_text("group, note ,id\n" + "".join(f"{g},x,{i}\n" for i, g in reversed(owner.items())) + "\n")
    group = groups_of(owner, train)
    assert [int(group[i]) for i in (7, 3, 900, 12)] == [0, 1, 0, 2]
    assert int((group == -1).sum()) == len(train) - 4
    for same in (path, str(path)):
        assert torch.equal(groups_of(same, train), group)
        assert describe_together(same) == describe_together(owner)
    for other in ({**owner, ids[0]: "bob"}, ids, "class"):
        assert describe_together(other) != describe_together(owner)


def test_ids_are_one_group_and_classes_are_the_labels(train: Rows):
    chosen = torch.tensor([5, 2, 77])
    for ids in (train.ids[chosen.numpy()], train.ids[chosen.numpy()].tolist(), torch.from_numpy(train.ids)[chosen]):
        group = groups_of(ids, train)
        assert (group >= 0).nonzero().flatten().tolist() == [2, 5, 77]
        assert group[chosen].tolist() == [0, 0, 0]
        assert describe_together(ids) == describe_together(train.ids[chosen.numpy()].tolist())
    assert torch.equal(groups_of("class", train), train.y)


class Batches(Rows):
    """Rows that remember the batches that were trained on."""

    def x(self, index_B: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled() and len(index_B) > 2:
            self.__dict__.setdefault("read", []).append(index_B.tolist())
        return super().x(index_B)


def test_training_itself_takes_few_batches_of_a_group(train: Rows):
    spied = Batches(train.source, train.y, ids=train.ids, classes=train.classes, scale=train.scale)
    wanted = set(range(100, 164))
    recipe(epochs=2, together=train.ids[100:164], groups_per_batch=2)(spied)
    assert len(spied.read) == 2 * 23
    assert sorted(i for batch in spied.read for i in batch) == sorted([*range(1438)] * 2)
    assert sum(bool(wanted & set(batch)) for batch in spied.read) <= 2 * 4  # slices of 31 rows: ceil(63 / 31) + 1
    assert sum(bool(wanted & set(batch)) for batch in spied.read[:23]) >= 2


def test_same_seed_same_bits_and_other_batches_with_groups(train: Rows):
    made = [bits(recipe(epochs=1, together=t, groups_per_batch=2)(train, seed=s)) for t, s in (("class", 0),) * 2]
    assert made[0] == made[1]
    others = [recipe(epochs=1, together=t, groups_per_batch=p)(train) for t, p in (("class", 3), (None, 2), (None, 3))]
    assert bits(others[0]) != made[0]
    assert bits(others[1]) == bits(others[2])  # without groups there is nothing to mix
    assert bits(others[1]) != made[0]


def test_retraining_without_some_rows_keeps_the_groups(train: Rows):
    """A model of part of the rows: the grouping is that of the whole data, and no other row is read."""
    spied = Batches(train.source, train.y, ids=train.ids, classes=train.classes, scale=train.scale)
    recipe(epochs=1, together="class", groups_per_batch=1)(spied, ids=train.ids[200:])
    assert sorted(i for batch in spied.read for i in batch) == list(range(200, 1438))
    assert np.mean([len(train.y[batch].unique()) for batch in spied.read]) < 2


def test_users_in_few_batches_cost_little_accuracy(train: Rows, test: Rows):
    """All rows belong to users of about 36 random rows; each is in about 4 of 23 batches."""
    owner = dict(zip(train.ids.tolist(), np.random.default_rng(0).integers(0, 40, len(train)).tolist()))
    plain, users = ([accuracy(recipe(together=t)(train, seed=s), test) for s in (0, 1)] for t in (None, owner))
    assert np.mean(plain) > 0.93
    assert np.mean(users) > np.mean(plain) - 0.03


def test_what_is_kept_depends_on_the_grouping(train: Rows):
    whole = torch.arange(len(train))

    def key(**fields) -> dict:
        return Pool(recipe(**fields), train).key(whole, Run())

    assert key() == key(groups_per_batch=7)
    assert len({str(key(**f)) for f in ({}, {"together": "class"}, {"together": "class", "groups_per_batch": 7})}) == 3
    many = train.ids[:1200]
    assert key(together=many) != key(together=np.append(many[:-1], train.ids[1300]))


def test_a_file_of_settings_says_what_stays_together(tmp_path: Path, monkeypatch, train: Rows):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "users.csv").write_text("id,group\n" + "".join(f"{i},{i % 9}\n" for i in train.ids))
    for together in ("class", "users.csv", train.ids[:3].tolist(), {int(train.ids[0]): "a", int(train.ids[1]): "b"}):
        read = from_dict({**SMALL, "recipe": {**SMALL["recipe"], "together": together, "groups_per_batch": 2}}).recipe
        assert isinstance(read, Recipe)
        assert (read.together, read.groups_per_batch) == (together, 2)


# -- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"together": "clas"}, r"'clas'. Did you mean 'class'"),
        ({"together": "users"}, r"Unknown grouping, together: 'users'.*CSV file"),
        ({"together": []}, "names no ids"),
        ({"together": 3}, "together cannot be 3"),
        ({"together": {1: None}}, "a name or a whole number; got None"),
        ({"together": {1: [2]}}, r"got \[2\]"),
        ({"together": "class", "groups_per_batch": 0}, "1 or more; got 0"),
        ({"together": "class", "groups_per_batch": 2.5}, "got 2.5"),
        ({"together": "class", "groups_per_batch": True}, "got True"),
        ({"together": "class", "groups_per_batch": 65}, "at most batch_size, 64; got 65"),
        ({"together": "nowhere.csv"}, "nowhere.csv cannot be read"),
    ],
)
def test_settings_that_cannot_be_are_refused_at_once(fields, words):
    with pytest.raises(ExpungeError, match=words):
        recipe(**fields)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "found nothing"),
        ("id,user\n1,2\n", "id and group; found id, user"),
        ("id,group\n1,a\n\n2,\n", "line 4 of .* lacks an id or a group"),
        ("id,group\n1\n", "line 2"),
        ("id,group\n1,a\n1,b\n", "the id 1 into two groups, a and b"),
        ("id,group\n", "names no ids"),
    ],
)
def test_files_that_cannot_be_are_refused_at_once(text, words, tmp_path: Path):
    (tmp_path / "users.csv").write_text(text)
    with pytest.raises(ExpungeError, match=words):
        recipe(together=tmp_path / "users.csv")


def test_unknown_ids_are_told_with_all_else_before_any_compute(train: Rows):
    with pytest.raises(ExpungeError, match=r"together: 2 of 3 ids are not in digits, e.g. 10000"):
        recipe(together=[10_000, 10_001, int(train.ids[0])])(train)
    wrong = {**SMALL["recipe"], "together": [10_000]}
    with pytest.raises(Problems) as raised:
        from_dict({**SMALL, "recipe": wrong, "methods": [{"name": "finetune", "region": {"layers": "nothing*"}}]})
    assert any("recipe: together: 1 of 1 ids are not in digits" in p for p in raised.value.problems)
    assert any("methods.0 (finetune)" in p for p in raised.value.problems)
    with pytest.raises(Problems) as raised:
        from_dict({**SMALL, "recipe": {"together": "clas", "groups_per_batch": 0, "epochs": -1}})
    assert len(raised.value.problems) == 3
