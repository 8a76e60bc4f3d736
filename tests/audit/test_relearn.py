"""Relearn time: knowing models need none, retrained ones need a while, and nobody is changed by it."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import expunge as ex
from expunge.audit.relearn import Relearn, relearn
from expunge.data import Rows
from expunge.errors import ExpungeError
from expunge.task import Classification
from expunge.untrained import untrained
from kit import accuracy, bits

TASK = Classification(classes=10)


@pytest.fixture(scope="module")
def pair(train: Rows, mlp_recipe: ex.Recipe) -> tuple[ex.Request, nn.Module, nn.Module]:
    request = ex.Request(train, classes=[3])
    return request, mlp_recipe(train), mlp_recipe(train, train.ids[request.keep.numpy()])


def test_the_original_needs_no_time_and_the_retrained_some(pair) -> None:
    request, original, retrained = pair
    forget = request.rows.take(request.forget)
    target = 0.95 * accuracy(original, request.rows, request.forget)
    assert relearn(original, forget, target, TASK).epochs == 0.0
    time = relearn(retrained, forget, target, TASK)
    assert time.epochs > 0.2
    assert not time.censored


def test_the_count_is_that_of_a_loop_by_hand(pair) -> None:
    """Plain SGD in the same order reaches the target between the two looks around the reported time."""
    request, _, retrained = pair
    forget = request.rows.take(request.forget)
    settings = Relearn(lr=0.02, batch_size=50)
    time = relearn(retrained, forget, 0.9, TASK, settings, seed=4)
    generator = torch.Generator().manual_seed(4)
    rows = forget.take(torch.randperm(len(forget), generator=generator)[: settings.cap])
    order = torch.cat([torch.randperm(len(rows), generator=generator) for _ in range(11)])
    model = copy.deepcopy(retrained).train()
    reached = None
    for step in range(200):
        index = order[step * 50 : (step + 1) * 50]
        nn.functional.cross_entropy(model(rows.x(index)), rows.y[index]).backward()
        with torch.no_grad():
            for p in model.parameters():
                p -= settings.lr * p.grad
                p.grad = None
        if reached is None and accuracy(model, rows) >= 0.9:
            reached = (step + 1) * 50 / len(rows)
    assert reached is not None
    assert time.epochs == pytest.approx(reached, abs=0.1 * reached + 50 / len(rows))


def test_a_target_out_of_reach_is_censored_at_the_limit(pair) -> None:
    request, _, retrained = pair
    time = relearn(retrained, request.rows.take(request.forget), 1.01, TASK, Relearn(max_epochs=1.5))
    assert time.censored
    assert time.epochs == 1.5


def test_a_compiled_model_is_told_to_be_no_object_for_training(pair) -> None:
    request, _, retrained = pair
    forget = request.rows.take(request.forget)
    compiled = torch.jit.trace(retrained, forget.x(torch.arange(2)))
    with pytest.raises(ExpungeError, match=r"compiled by torch\.jit"):
        relearn(compiled, forget, 1.01, TASK)
    assert relearn(compiled, forget, 0.0, TASK).epochs == 0


def test_the_model_is_untouched_and_the_answer_repeats(pair) -> None:
    request, _, retrained = pair
    before, forget = bits(retrained), request.rows.take(request.forget)
    first = relearn(retrained, forget, 0.9, TASK, seed=1)
    assert relearn(retrained, forget, 0.9, TASK, seed=1) == first
    assert bits(retrained) == before


def test_settings_out_of_range_are_all_named() -> None:
    with pytest.raises(ExpungeError, match=r"relearn: lr must be above 0(.|\n)*relearn: cap"):
        Relearn(lr=0, cap=-1)


@pytest.mark.parametrize("wrong", [{"cap": 1e2}, {"batch_size": 64.0}, {"max_epochs": float("inf")}, {"lr": True}])
def test_settings_of_another_kind_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ExpungeError, match=f"relearn: {next(iter(wrong))} must be"):
        Relearn(**wrong)


def test_untrained_draws_every_parameter_and_buffer_anew(net: nn.Module) -> None:
    fresh = untrained(net, seed=3)
    for (name, a), b in zip(fresh.named_parameters(), net.parameters()):
        assert not torch.equal(a, b), name
    for name, value in fresh.named_buffers():
        if name.endswith("running_mean"):
            assert not value.any()
    assert bits(untrained(net, seed=3)) == bits(fresh)


@pytest.mark.parametrize("name", ["lenet", "vit_tiny"])
def test_untrained_draws_as_the_constructor_does(name: str) -> None:
    small = {"vit_tiny": {"dim": 32, "depth": 1, "heads": 2}}.get(name, {})
    model = ex.models.build(name, channels=1, size=32, classes=10, **small)
    for (path, drawn), again in zip(model.named_parameters(), untrained(model, seed=3).parameters()):
        if drawn.numel() >= 300:
            assert again.std().item() == pytest.approx(drawn.std().item(), rel=0.2), path
            assert drawn.std() == 0 or not torch.equal(drawn, again), path


def test_untrained_draws_the_attention_of_pytorch_anew() -> None:
    model = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2, enable_nested_tensor=False)
    fresh, again = untrained(model, seed=3), untrained(model, seed=4)
    drawn = [name for name, p in model.named_parameters() if p.ndim > 1]
    assert any("in_proj_weight" in name for name in drawn)
    for name in drawn:
        assert not torch.equal(fresh.get_parameter(name), model.get_parameter(name)), name
        assert not torch.equal(fresh.get_parameter(name), again.get_parameter(name)), name


def test_untrained_names_a_module_it_cannot_reset() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))

    with pytest.raises(ExpungeError, match=r"1 \(Own\) cannot be reset"):
        untrained(nn.Sequential(nn.Linear(2, 3), Own()))
