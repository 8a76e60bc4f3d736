"""Whatever is asked of a model, it is afterwards as it was; and what does not fit is refused."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from nets import images, seeded
from torch import nn

import expunge as ex
from expunge import explain

CLASSES = torch.tensor([0, 1, 3])


def net() -> nn.Module:
    """In training mode but for its norm, some weights frozen, with gradients, dropout and batch statistics."""
    start = seeded(lambda: [nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Dropout(0.5)])
    model = nn.Sequential(*start, nn.AdaptiveAvgPool2d(1), nn.Flatten(), seeded(lambda: nn.Linear(4, 4)))
    model.train()
    model[1].eval()
    model[0].bias.requires_grad_(False)
    model[6].weight.grad = torch.ones(4, 4)
    return model


def state(model: nn.Module) -> dict:
    hooks = {n: [len(v) for k, v in vars(m).items() if k.endswith("_hooks")] for n, m in model.named_modules()}
    weights = {n: (p.requires_grad, None if p.grad is None else p.grad.clone()) for n, p in model.named_parameters()}
    values = {n: v.clone() for n, v in model.state_dict().items()}
    return {"modes": [m.training for m in model.modules()], "hooks": hooks, "weights": weights, "values": values}


def same(a, b) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(i, j) for i, j in zip(a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) else a == b


def curves(model, x, classes):
    return explain.insertion(model, x, classes, x.sum(1)).curves


ASKED = {**explain.EXPLAINERS, "insertion": curves}


@pytest.mark.parametrize("name", ASKED)
@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_nothing_is_changed(name: str, mode) -> None:
    model = net()
    x, before, random = images(3, 2, 6, 6), state(model), torch.get_rng_state()
    kept = x.clone()
    with mode():
        found = ASKED[name](model, x, CLASSES)
        assert torch.is_grad_enabled() == (mode is torch.enable_grad)
    assert same(state(model), before)
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.equal(x, kept)
    assert not x.requires_grad
    assert not found.requires_grad
    assert torch.equal(found, ASKED[name](model, x, CLASSES))  # dropout is off


@pytest.mark.parametrize("name", [n for n in ASKED if n != "chance"])
def test_after_an_error_too(name: str) -> None:
    model = net()
    before = state(model)
    with pytest.raises(ex.ExpungeError, match="classes 0 to 3; asked to explain 4, 9"):
        ASKED[name](model, images(3, 2, 6, 6), torch.tensor([9, 1, 4]))
    assert same(state(model), before)


@pytest.mark.parametrize("name", [n for n in ASKED if n not in ("chance", "insertion")])
def test_batches_do_not_matter(name: str) -> None:
    model, x = net(), images(3, 2, 6, 6)
    one, all_ = (ASKED[name](model, x, CLASSES, batch_size=n) for n in (1, 3))
    torch.testing.assert_close(one, all_)


class Wrapped(nn.Module):
    """Returns an object with logits, as transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.body = net()

    def forward(self, x):
        return SimpleNamespace(logits=self.body(x))


@pytest.mark.parametrize("name", ASKED)
def test_a_model_that_returns_an_object(name: str) -> None:
    x = images(3, 2, 6, 6)
    assert torch.equal(ASKED[name](Wrapped(), x, CLASSES), ASKED[name](net(), x, CLASSES))


@pytest.mark.parametrize("name", [n for n in ASKED if n != "chance"])
def test_what_does_not_fit_is_refused(name: str) -> None:
    ask, model, x = ASKED[name], net(), images(3, 2, 6, 6)
    spoiled = x.clone()
    spoiled[1, 0, 2, 2] = float("nan")
    with pytest.raises(ex.ExpungeError, match=r"NaN or infinity \(positions \[1\]\)"):
        ask(model, spoiled, CLASSES)
    with pytest.raises(ex.ExpungeError, match="one whole number, the class to explain; got int64 of shape"):
        ask(model, x, CLASSES[:2])
    with pytest.raises(ex.ExpungeError, match="classes 0 to 3; asked to explain -1"):
        ask(model, x, torch.tensor([0, -1, 2]))
    model[6].weight.data[0, 0] = float("inf")
    with pytest.raises(ex.ExpungeError, match="its weights are damaged"):
        ask(model, x, CLASSES)
    with pytest.raises(ex.ExpungeError, match="must return logits of shape"):
        ask(nn.Sequential(nn.Conv2d(2, 4, 3)), x, CLASSES)


def test_all_problems_at_once() -> None:
    with pytest.raises(ex.ExpungeError) as caught:
        explain.saliency(net(), torch.zeros(3, 6, 6), torch.tensor([0.5]), batch_size=0)
    assert len(caught.value.problems) == 3


def test_explainers_by_name() -> None:
    assert explain.get("grad_cam") is explain.grad_cam
    with pytest.raises(ex.ExpungeError, match=r"Unknown explainer 'gradcam'. Did you mean 'grad_cam'"):
        explain.get("gradcam")


def test_chance() -> None:
    x, y = torch.zeros(400, 1, 8, 8), torch.zeros(400, dtype=torch.long)
    maps = explain.chance(nn.Identity(), x, y)
    assert maps.shape == (400, 8, 8)
    assert abs(float(maps.mean()) - 0.5) < 0.01
    assert torch.equal(maps, explain.chance(nn.Identity(), x, y, seed=0))
    assert not torch.equal(maps, explain.chance(nn.Identity(), x, y, seed=1))
    rough, fine = explain.chance(nn.Identity(), x, y, side=2).diff().abs().mean(), maps.diff().abs().mean()
    assert rough < 0.3 * fine
    with pytest.raises(ex.ExpungeError, match="side of at least 1"):
        explain.chance(nn.Identity(), x, y, side=0)
