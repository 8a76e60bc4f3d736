"""UNSIR: what it shows, what it never reads, and that learned noise forgets."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

import expunge as ex
from expunge import Classification, ExpungeError, Request, Rows
from kit import accuracy, bits

GENTLE = {"lr": 0.01, "repair_lr": 0.005, "batch_size": 64}  # digits give 26 + 20 steps


@dataclass(frozen=True)
class Seeing(Classification):
    """A task that keeps what a model in training is shown, apart from the learning of noise."""

    shown: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def loss(self, model: nn.Module, x_B: Tensor, y_B: Tensor) -> Tensor:
        if x_B.is_floating_point():
            self.shown.append((x_B.detach().clone(), y_B.clone()))
        return super().loss(model, x_B, y_B)

    @property
    def labels(self) -> np.ndarray:
        return torch.cat([y for _, y in self.shown]).numpy()

    def images(self, label: int) -> set[bytes]:
        return {x.contiguous().numpy().tobytes() for x_B, y_B in self.shown for x in x_B[y_B == label]}


class Guarded(Dataset):
    """A dataset that raises on access to a row of some classes."""

    def __init__(self, rows: Rows, classes: list[int]) -> None:
        self.rows, self.classes, self.read = rows, classes, 0

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        if int(self.rows.y[i]) in self.classes:
            raise RuntimeError(f"row {i} of a class to forget was read")
        self.read += 1
        return self.rows.x(torch.tensor([i]))[0], int(self.rows.y[i])


# -- the forget rows -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compat", ["paper", "notebook"])
@pytest.mark.parametrize("classes", [[0], [0, 3]])  # class 0 holds the first row, at which a check might look
def test_a_row_that_must_go_is_never_read(classes, compat, net, train):
    guarded = Guarded(train, classes)
    rows = Rows(guarded, train.y, classes=train.classes, hash_inputs=False)
    with pytest.raises(ExpungeError, match="was read"):
        rows.x(torch.tensor([0]))
    few = {"retain_per_class": 40, "noise_steps": 3, "compat": compat}
    result = ex.unlearn(net, Request(rows, classes=classes), "unsir", **few)
    assert guarded.read > 300
    assert bits(result.model) == bits(ex.unlearn(net, Request(train, classes=classes), "unsir", **few).model)


def test_it_would_be_seen_if_one_was_read(net, train):
    rows = Rows(Guarded(train, [3]), train.y, classes=train.classes, hash_inputs=False)
    with pytest.raises(ExpungeError, match="was read"):
        ex.unlearn(net, Request(rows, classes=[3]), "neggrad_plus")


def test_a_row_that_cannot_be_read_is_told_before_any_compute_and_what_to_do(net, train):
    guarded = Guarded(train, [3])
    told = r"a class to forget was read.*Rows\(dataset, labels, hash_inputs=False\)"
    with pytest.raises(ExpungeError, match=f"row 3 cannot be read.*{told}"):
        Request(guarded, classes=[3])  # loads it
    guarded.read = 0
    request = Request(Rows(guarded, train.y, classes=train.classes), classes=[3])
    with pytest.raises(ExpungeError, match=f"sixteen are for its digest.*{told}"):
        ex.unlearn(net, request, "unsir")
    assert guarded.read < 16


# -- what is shown -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [[3], [0, 2]])
def test_impair_shows_noise_under_every_label_and_repair_the_sample(classes, net, train):
    task = Seeing(classes=10)
    fields = {"retain_per_class": 50, "images": 8, "noise_steps": 2, "share": 0.5}
    ex.unlearn(net, Request(train, classes=classes), "unsir", task=task, **fields)
    sample = 50 * (10 - len(classes))
    assert len(task.labels) == 2 * sample + sample  # half of the impair phase is noise
    impair, repair = task.labels[: 2 * sample], task.labels[2 * sample :]
    for c in range(10):
        shown = 50 if c not in classes else sample // len(classes)
        assert abs(int((impair == c).sum()) - shown) <= 8
        assert int((repair == c).sum()) == (0 if c in classes else 50)
    for c in classes:
        assert len(task.images(c)) == 8
        assert not task.images(c) & {x.numpy().tobytes() for x in train.x(torch.arange(len(train)))}


def test_the_sample_is_drawn_by_the_seed(net, train, three):
    seen = []
    for seed in (0, 0, 1):
        task = Seeing(classes=10)
        ex.unlearn(net, three, "unsir", task=task, retain_per_class=20, noise_steps=1, seed=seed)
        seen.append(set.union(*(task.images(c) for c in range(10) if c != 3)))
    assert len(seen[0]) == 180
    assert seen[0] == seen[1]
    assert len(seen[0] & seen[2]) < 90


def test_two_classes_take_no_more_steps_than_one_by_a_fifth(net, train):
    steps = [ex.unlearn(net, Request(train, classes=c), "unsir", batch_size=32).log.steps for c in ([3], [3, 5])]
    assert steps[1] <= 1.2 * steps[0]


# -- the public notebook -------------------------------------------------------------------------------------------


def test_the_notebook_shows_few_images_under_the_first_label_and_takes_the_first_rows(net, train):
    task = Seeing(classes=10)
    fields = {"retain_per_class": 30, "images": 16, "noise_steps": 2}
    ex.unlearn(net, Request(train, classes=[0, 2]), "unsir", task=task, compat="notebook", **fields)
    assert int((task.labels == 0).sum()) == 2 * 20  # one image for the one channel, of either class, in 20 batches
    assert int((task.labels == 2).sum()) == 0
    assert len(task.images(0)) == 2
    first = train.x((train.y == 7).nonzero().flatten()[:30])
    assert task.images(7) == {x.numpy().tobytes() for x in first}


def test_the_notebook_moves_statistics_while_it_learns_noise_and_the_default_does_not(net, three):
    nothing = {"epochs": 0, "repair_epochs": 0}
    assert bits(ex.unlearn(net, three, "unsir", **nothing).model) == bits(net)
    model = ex.unlearn(net, three, "unsir", compat="notebook", **nothing).model
    moved = {name for name, value in bits(model).items() if value != bits(net)[name]}
    assert moved == {name for name, _ in net.named_buffers()}
    frozen = ex.unlearn(net, three, "unsir", compat="notebook", region={"batchnorm": "freeze"}, **nothing).model
    assert bits(frozen) == bits(net)


# -- it works ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [[0], [0, 2]])
def test_it_forgets_and_keeps_the_rest_on_unseen_rows(classes, net, train, test):
    gone = torch.isin(test.y, torch.tensor(classes))
    for seed in range(2):
        model = ex.unlearn(net, Request(train, classes=classes), "unsir", seed=seed, **GENTLE).model
        assert accuracy(model, test, gone.nonzero().flatten()) <= 0.05
        assert accuracy(model, test, (~gone).nonzero().flatten()) >= 0.9


def test_neither_gaussian_noise_nor_none_forgets_as_learned_noise_does(net, train, test):
    gone, left = torch.isin(test.y, torch.tensor([0, 2])).nonzero().flatten(), {}
    for noise, seeds in (("learned", 5), ("none", 5), ("gaussian", 2)):
        fields = {"noise": noise, "retain_per_class": 120, **GENTLE}
        results = [ex.unlearn(net, Request(train, classes=[0, 2]), "unsir", seed=s, **fields) for s in range(seeds)]
        left[noise] = [accuracy(result.model, test, gone) for result in results]
    assert max(left["learned"]) <= 0.05
    assert np.mean(left["none"]) >= 0.3
    assert min(left["none"] + left["gaussian"]) >= 0.15


def place(model: nn.Module, rows: Rows, index: Tensor, label: int) -> float:
    with torch.no_grad():
        logits = model.eval()(rows.x(index)).numpy()
    others = np.delete(np.arange(10), label)
    return float(np.mean([[row[label] > row[c] for c in others] for row in logits]))


def test_the_place_of_the_class_on_retain_rows_is_measured(net, train):
    few = train.take(torch.arange(400))  # so few that all retain rows are looked at
    request = Request(few, classes=[0, 2])
    result = ex.unlearn(net, request, "unsir", noise_steps=5, **GENTLE)
    told = result.log.facts["unsir"]["place"]
    for side, model in (("before", net), ("after", result.model)):
        expected = {str(c): pytest.approx(place(model, few, request.keep, c), abs=1e-4) for c in (0, 2)}
        assert told[side] == expected


def test_few_steps_and_a_class_that_rises_on_retain_rows_are_told(net, train, test):
    gone = (test.y == 0).nonzero().flatten()
    weak = ex.unlearn(net, Request(train, classes=[0]), "unsir")
    assert accuracy(weak.model, test, gone) > 0.05
    (told,) = weak.log.notes
    assert told.startswith("So few steps at such rates (32 at 0.004, then 21 at 0.002) that Adam moves no weight by")
    assert "0.17" in told
    assert ex.unlearn(net, Request(train, classes=[0]), "unsir", **GENTLE).log.notes == []
    unrepaired = ex.unlearn(net, Request(train, classes=[0]), "unsir", **{**GENTLE, "repair_lr": 1e-5})
    (told,) = unrepaired.log.notes
    assert "has a better place after the repair than before" in told


def test_repair_repairs(net, train, three):
    strong = {"lr": 0.02, "repair_lr": 0.01, "batch_size": 64}
    impaired = ex.unlearn(net, three, "unsir", repair_epochs=0, **strong).model
    repaired = ex.unlearn(net, three, "unsir", **strong).model
    assert accuracy(repaired, train, three.keep) > accuracy(impaired, train, three.keep)


# -- refusals ------------------------------------------------------------------------------------------------------


def test_samples_are_refused(net, train):
    with pytest.raises(ExpungeError, match=r"unsir forgets class; this request names 50 samples(.|\n)*finetune"):
        ex.unlearn(net, Request(train, ids=train.ids[:50].tolist()), "unsir")


def test_all_classes_but_one_are_refused(train):
    with pytest.raises(ExpungeError, match="leaves 1 class"):
        Request(train, classes=range(1, 10))


def test_tokens_are_refused():
    rows = Rows(np.arange(120).reshape(30, 4) % 7, np.arange(30) % 3)
    model = nn.Sequential(nn.Embedding(7, 5), nn.Flatten(), nn.Linear(20, 3))
    with pytest.raises(ExpungeError, match=r"are tokens \(torch.int64\)"):
        ex.unlearn(model, Request(rows, classes=[1]), "unsir")


def test_retain_rows_of_the_class_are_refused(net, train):
    request = Request(train, classes=[3])
    request.state[request.forget[:7]] = 0  # what no request of ours does
    for name in ("forget", "keep"):
        vars(request).pop(name)
    with pytest.raises(ExpungeError, match=r"7 of the .* retain rows are of a class that must go"):
        ex.unlearn(net, request, "unsir")


def test_fields_out_of_range_are_all_named():
    wrong = {"repair_epochs": -1, "noise_steps": -1, "images": 0, "retain_per_class": 0, "penalty": -1.0, "share": 1.0}
    with pytest.raises(ExpungeError) as caught:
        ex.methods.Unsir(**wrong, repair_lr=0.0, noise_lr=0.0, noise="white", compat="papr")
    for name in (*wrong, "repair_lr", "noise_lr", "'white'", "Did you mean 'paper'"):
        assert name in str(caught.value)
