"""Random labelling: which labels are taught, and in which order."""

from __future__ import annotations

import numpy as np
import torch
from scipy.stats import chisquare

import expunge as ex
from expunge.task import Classification
from expunge.unlearning import default_task
from kit import Recording


class Spy(Classification):
    """Notes the labels that the loop teaches."""

    def loss(self, model, x_B, y_B):
        taught.append(y_B.clone())
        return super().loss(model, x_B, y_B)


taught: list[torch.Tensor] = []


def labels_taught(model, request, **fields) -> np.ndarray:
    """The labels of forget rows, one epoch a row, in the order of `request.forget`."""
    taught.clear()
    spied = Recording.of(request.rows)
    again = ex.Request(spied, ids=request.rows.ids[request.forget.numpy()].tolist())
    spied.seen.clear()
    without = tuple(sorted(set(range(10)) - set(request.rows.y[request.keep].tolist())))
    ex.unlearn(model, again, "random_label", task=Spy(classes=10, without=without), **fields)
    index, labels = np.array(spied.seen), torch.cat(taught).numpy()
    assert len(index) == len(labels)
    mine = np.isin(index, request.forget.numpy())
    epochs = mine.sum() // len(request.forget)
    index, labels = index[mine].reshape(epochs, -1), labels[mine].reshape(epochs, -1)
    order = index.argsort(axis=1)
    np.testing.assert_array_equal(np.take_along_axis(index, order, 1), np.tile(request.forget.numpy(), (epochs, 1)))
    return np.take_along_axis(labels, order, 1)


def test_labels_are_never_the_true_ones_and_even_over_the_others(train, mlp):
    request = ex.Request(train, fraction=0.5, seed=1)
    labels = labels_taught(mlp, request, epochs=6, mix="in_turn")
    true = train.y[request.forget].numpy()
    assert not (labels == true).any()
    for c in range(10):
        counts = np.bincount(labels[:, true == c].ravel(), minlength=10)
        assert chisquare(np.delete(counts, c)).pvalue > 1e-4


def test_labels_of_a_class_that_goes_are_those_of_the_others(train, mlp):
    labels = labels_taught(mlp, ex.Request(train, classes=[3]), epochs=10, mix="in_turn")
    counts = np.bincount(labels.ravel(), minlength=10)
    assert counts[3] == 0
    assert chisquare(np.delete(counts, 3)).pvalue > 1e-4


def test_a_class_that_is_gone_is_no_label_any_more(train, mlp):
    once = ex.unlearn(mlp, ex.Request(train, classes=[3]), "original").model
    request = ex.Request(train, classes=[4]).after(ex.Request(train, classes=[3]))
    assert default_task(request).without == (3, 4)
    result = ex.unlearn(once, ex.Request(train, classes=[4]), "random_label")
    with torch.no_grad():
        said = result.model(train.x(request.forget)).argmax(1)
    assert not (said == 3).any()


def test_labels_are_drawn_once_or_for_every_epoch(train, mlp):
    request = ex.Request(train, fraction=0.1)
    once = labels_taught(mlp, request, draw="once", epochs=3, mix="in_turn")
    anew = labels_taught(mlp, request, draw="epoch", epochs=3, mix="in_turn")
    assert (once == once[0]).all()
    assert not (anew == anew[0]).all()


def test_the_order_is_the_mix_asked_for(train, mlp):
    spied = Recording.of(train)
    request = ex.Request(spied, ids=train.ids[:300].tolist())
    ex.unlearn(mlp, request, "random_label", mix="in_turn", epochs=1)
    forget = np.array(spied.seen) < 300
    assert forget[:300].all()
    assert not forget[300:].any()
    spied.seen.clear()
    ex.unlearn(mlp, request, "random_label", mix="shuffled", epochs=1)
    share = (np.array(spied.seen) < 300).reshape(2, -1).mean(1)
    np.testing.assert_allclose(share, 300 / 1438, atol=0.06)


def test_an_own_task_draws_no_label_that_must_go(mlp, train):
    seen = []

    class Noting(ex.Classification):
        def another_label(self, y_B, generator):
            found = super().another_label(y_B, generator)
            seen.extend(found.tolist())
            return found

    ex.unlearn(mlp, ex.Request(train, classes=[3, 5]), "random_label", task=Noting(classes=10), epochs=1)
    assert len(seen) > 100
    assert not {3, 5} & set(seen)
