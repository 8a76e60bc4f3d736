from __future__ import annotations

import pytest
import torch
from nets import flat, images, seeded
from torch import nn

import expunge as ex
from expunge import explain

CLASSES = torch.tensor([0, 2, 3])


@pytest.fixture
def linear() -> nn.Module:
    return seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(2 * 6 * 8, 4)))


def smooth() -> nn.Module:
    model = seeded(
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.Tanh(), nn.Conv2d(4, 4, 3), nn.Softplus(), nn.Flatten(), nn.Linear(4 * 2 * 4, 4)
        )
    )
    model[5].weight.data *= 20
    return model


def test_saliency_of_a_linear_model_is_its_weights(linear: nn.Module) -> None:
    expected = linear[1].weight.detach().view(4, 2, 6, 8)[CLASSES].abs().amax(1)
    torch.testing.assert_close(explain.saliency(linear, images(3, 2, 6, 8), CLASSES), expected)


def test_saliency_against_finite_differences() -> None:
    model, x = smooth().double(), images(3, 2, 6, 8).double()
    found = explain.saliency(model, x, CLASSES)
    step = 1e-6 * torch.eye(96, dtype=torch.float64).view(96, 2, 6, 8)
    for b, c in enumerate(CLASSES):
        with torch.no_grad():
            slope = (model(x[b] + step)[:, c] - model(x[b] - step)[:, c]) / 2e-6
        torch.testing.assert_close(found[b], slope.view(2, 6, 8).abs().amax(0).float(), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("steps", [1, 7])
def test_integrated_gradients_are_exact_for_a_linear_model(linear: nn.Module, steps: int) -> None:
    x, start = images(3, 2, 6, 8), images(2, 6, 8, seed=5)
    found = explain.integrated_gradients(linear, x, CLASSES, baseline=start, steps=steps)
    expected = ((x - start) * linear[1].weight.detach().view(4, 2, 6, 8)[CLASSES]).sum(1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("given", ["none", "one", "each"])
def test_integrated_gradients_add_up(given: str) -> None:
    model, x = smooth(), images(3, 2, 6, 8)
    baseline = {"none": None, "one": images(2, 6, 8, seed=5), "each": images(3, 2, 6, 8, seed=6)}[given]
    found = explain.integrated_gradients(model, x, CLASSES, baseline=baseline, batch_size=2)
    start = torch.zeros_like(x) if baseline is None else baseline.expand_as(x)
    with torch.no_grad():
        expected = (model(x) - model(start)).gather(1, CLASSES[:, None])[:, 0]
    assert expected.abs().max() > 1
    torch.testing.assert_close(found.sum((1, 2)), expected, atol=1e-4, rtol=1e-4)


def test_with_kinks_more_steps_add_up_better() -> None:
    model, x = flat(), images(3, 2, 6, 8)
    with torch.no_grad():
        expected = (model(x) - model(torch.zeros_like(x))).gather(1, CLASSES[:, None])[:, 0]
    errors = [
        float((explain.integrated_gradients(model, x, CLASSES, steps=n).sum((1, 2)) - expected).abs().max())
        for n in (2, 16, 128)
    ]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-3


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"steps": 0}, "steps must be at least 1; got 0"),
        ({"baseline": torch.zeros(1, 6, 8)}, r"shape \(3, 2, 6, 8\) or \(2, 6, 8\); got shape \(1, 6, 8\)"),
        ({"baseline": torch.full((2, 6, 8), float("nan"))}, "with NaN"),
    ],
)
def test_bad_settings(linear: nn.Module, settings, said: str) -> None:
    with pytest.raises(ex.ExpungeError, match=said):
        explain.integrated_gradients(linear, images(3, 2, 6, 8), CLASSES, **settings)
