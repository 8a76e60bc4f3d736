"""The verdict held against itself: retrainings are called what they are, and so is the model that forgot nothing."""

from __future__ import annotations

import random
from collections import Counter

import pytest
import torch

import expunge as ex
from expunge.audit.subject import Ground, Subject
from expunge.audit.verdict import NO_EFFECT, WITHIN, Judge
from expunge.data import Rows
from expunge.unlearning import default_task

RUNS, DRAWS = 14, 100


@pytest.fixture(scope="module", params=["class", "samples"])
def pools(request, train: Rows, test: Rows) -> tuple[str, list[Subject], list[Subject]]:
    """Retrained and original models of one request, each with a seed of its own."""
    asked = ex.Request(train, classes=[3]) if request.param == "class" else ex.Request(train, fraction=0.1, seed=0)
    recipe = ex.Recipe(model={"name": "mlp", "hidden": [64]}, epochs=15, lr=0.1, batch_size=64)
    ground, task = Ground.of(asked, test), default_task(asked)
    kept = train.ids[asked.keep.numpy()]
    retrained = [Subject("retrain", s, recipe(train, kept, s), task, ground) for s in range(RUNS)]
    originals = [Subject("original", s, recipe(train, None, 100 + s), task, ground) for s in range(4)]
    return request.param, retrained, originals


@pytest.mark.parametrize(("reference", "judged"), [(3, 3), (3, 1), (5, 5)])
def test_retraining_is_called_within_and_the_original_of_a_class_never(pools, reference: int, judged: int) -> None:
    scope, retrained, originals = pools
    draw = random.Random(reference * 10 + judged)
    words: Counter[str] = Counter()
    for _ in range(DRAWS):
        chosen = draw.sample(retrained, reference + judged)
        before = draw.sample(originals, min(judged, len(originals)))
        judge = Judge(chosen[:reference], before)
        words[judge.verdict("again", chosen[reference:]).word] += 1
        if scope == "class":
            assert judge.verdict("original", before).word == NO_EFFECT
    assert words[WITHIN] >= 0.95 * DRAWS, words


def test_a_damaged_model_is_never_called_within(pools, train: Rows) -> None:
    _, retrained, originals = pools
    judge = Judge(retrained[:3], originals[:1])
    ground, task = retrained[0].ground, retrained[0].task
    broken = ex.models.build("mlp", channels=1, size=8, classes=10, hidden=[64])
    with torch.no_grad():
        for p in broken.parameters():
            p.zero_()
    assert judge.verdict("broken", [Subject("broken", 0, broken, task, ground)]).word == "model damaged"
