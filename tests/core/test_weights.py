"""Weights that cannot be moved are refused before compute, and doing nothing is not remembered as forgetting."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import expunge as ex
from expunge import ExpungeError, Request, Rows
from expunge.weights import dense_problems, differ, moved_share, step_problems


class Words(nn.Module):
    """Sums of embeddings, whose gradients are sparse."""

    def __init__(self, sparse: bool) -> None:
        super().__init__()
        self.words, self.head = nn.EmbeddingBag(7, 6, mode="sum", sparse=sparse), nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.words(x.long().flatten(1)))


@pytest.mark.parametrize("name", ["random_label", "salun", "scrub", "boundary_expand", "finetune"])
def test_weights_of_16_bits_are_refused_as_steps_round_away(name, mlp, train):
    narrow = copy.deepcopy(mlp).bfloat16()
    before = moved_share(narrow, narrow)
    with pytest.raises(ExpungeError, match=r"16 bits, e\.g\. .*model\.float\(\)"):
        ex.unlearn(narrow, Request(train, classes=[3]), name)
    assert before == 0
    for p in narrow.parameters():
        p.requires_grad_(False)
    assert not step_problems(narrow)


@pytest.mark.parametrize("name", ["finetune", "salun", "gradient_ascent"])
def test_sparse_gradients_are_refused(name):
    x = torch.randint(7, (30, 1, 1, 4), generator=torch.Generator().manual_seed(0)).float()
    rows = Rows(x, torch.arange(30) % 3)
    with pytest.raises(ExpungeError, match="words gives sparse gradients"):
        ex.unlearn(Words(sparse=True), Request(rows, classes=[1]), name)
    assert ex.unlearn(Words(sparse=False), Request(rows, classes=[1]), name).moved > 0


@pytest.mark.parametrize("whole", [True, False])
def test_compiled_models_that_cannot_be_copied_for_training_are_refused(whole, mlp, train):
    compiled = torch.jit.trace(mlp, train.x(torch.arange(2)))
    model = compiled if whole else nn.Sequential(compiled, nn.Identity())
    with pytest.raises(ExpungeError, match=r"(The model|0) is compiled by torch\.jit, .*load_state_dict"):
        ex.unlearn(model, Request(train, classes=[3]), "finetune")
    plain = ex.models.build("mlp", channels=1, size=8, classes=10, hidden=[32])  # what the sentence advises
    plain.load_state_dict(compiled.state_dict())
    assert ex.unlearn(plain, Request(train, classes=[3]), "finetune", epochs=1).moved > 0
    for p in model.parameters():
        p.requires_grad_(False)
    assert not step_problems(model)


def test_sparse_weights_are_refused_by_every_method(train):
    class Sparse(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.rand(10, 64).to_sparse())

        def forward(self, x):
            return torch.sparse.mm(self.weight, x.flatten(1).T).T

    model = Sparse()
    assert len(dense_problems(model)) == 1
    for name in ("random_label", "ssd", "unsir", "influence", "svd_forget"):
        with pytest.raises(ExpungeError, match="weight is no dense tensor"):
            ex.unlearn(model, Request(train, classes=[3]), name)


def test_what_did_nothing_has_forgotten_nothing(mlp, train):
    request = Request(train, classes=[3])
    idle = ex.unlearn(mlp, request, "finetune", epochs=0)
    assert idle.moved == 0
    assert not getattr(idle.model, "_expunge_gone", {})
    again = ex.unlearn(idle.model, request, "gradient_ascent")
    assert again.moved > 0
    assert list(again.model._expunge_gone.values()) == [train.ids[request.forget.numpy()].tolist()]


def test_a_buffer_alone_is_a_difference():
    one = nn.BatchNorm1d(3)
    other = copy.deepcopy(one)
    assert not differ(one, other)
    other.running_mean += 1
    assert differ(one, other)
    assert moved_share(one, other) == 0
    assert differ(one, nn.BatchNorm1d(4))
