"""Fine-tuning: plain training on the retain rows, nothing else."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import expunge as ex
from expunge.methods.finetune import FineTune
from expunge.run import Run
from kit import Recording, bits


def test_it_is_plain_training_on_retain(train, mlp, three):
    method = FineTune(epochs=2, lr=0.05, schedule="constant")
    mine, run = copy.deepcopy(mlp), Run(seed=2)
    optimizer = torch.optim.SGD(mine.parameters(), 0.05, momentum=0.9, weight_decay=5e-4, fused=True)
    for epoch in range(2):
        for picks in method.phase().plan({"retain": three.keep}, run.generator("plan", 0, epoch)):
            index = picks[0][1]
            optimizer.zero_grad()
            F.cross_entropy(mine(train.x(index)), train.y[index]).backward()
            optimizer.step()
    assert bits(ex.unlearn(mlp, three, method, seed=2).model) == bits(mine)


def test_the_forget_rows_are_never_read(train, mlp):
    spied = Recording.of(train)
    request = ex.Request(spied, classes=[3])
    result = ex.unlearn(mlp, request, "finetune", epochs=2)
    assert sorted(spied.seen) == sorted(request.keep.tolist() * 2)
    assert result.log.examples == 2 * len(request.keep)


def test_it_augments_as_the_recipe_does(mlp, three, mlp_recipe):
    from dataclasses import replace

    plain = ex.unlearn(mlp, three, "finetune", recipe=mlp_recipe, epochs=1)
    augmented = ex.unlearn(mlp, three, "finetune", recipe=replace(mlp_recipe, augment="crop"), epochs=1)
    assert bits(plain.model) != bits(augmented.model)


class Marked(nn.Module):
    """Answers NaN where the first pixel is bright, which no digit's is."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x) + torch.where(x[:, 0, 0, :1] > 50, torch.nan, 0.0)


@pytest.mark.parametrize("name", ["finetune", "salun", "unsir"])
def test_a_model_that_answers_nan_is_named_and_not_the_rate(name, mlp, train):
    x = torch.cat([train.x(torch.arange(200)), torch.zeros(1, *train.shape)])
    x[200, 0, 0, 0] = 1e6
    y = torch.cat([train.y[:200], torch.tensor([1])])
    rows = ex.Rows(x, y, name="marked")
    with pytest.raises(
        ex.ExpungeError, match=r"model itself returns NaN or infinity for rows of marked, e\.g\. \[200\]"
    ):
        ex.unlearn(Marked(mlp), ex.Request(rows, classes=[3]), name)
