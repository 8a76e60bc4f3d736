"""Fine-tuning: plain training on the retain rows, nothing else."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F

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
