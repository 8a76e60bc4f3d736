"""Learned noise: what it minimises, against autograd by hand, and that the model stands still meanwhile."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from expunge import Classification, Phase, Rows, Run, Term
from expunge.descend import descend
from expunge.surrogate.noise import Noise, gaussian_like
from kit import bits

LABELS = torch.tensor([3] * 16 + [5] * 16)


def start(n: int = 32) -> Tensor:
    return torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def learn(noise: Noise, steps: int, penalty: float, lr: float = 0.1) -> None:
    phase = Phase(
        terms=(Term("noise", weight=-1.0),),
        epochs=steps,
        lr=lr,
        batch_size=len(noise.y),
        optimizer="adam",
        weight_decay=0.0,
        penalty=lambda module, _: penalty * noise.energy(),
    )
    places = noise.places()
    descend(noise, places, {"noise": torch.arange(len(places))}, Classification(classes=10), [phase], Run())


def objective(net: nn.Module, x_N: Tensor, y_N: Tensor, penalty: float) -> Tensor:
    """J as the paper has it, in double precision where it is summed."""
    return -F.cross_entropy(net.eval()(x_N), y_N) + penalty * (x_N**2).sum((1, 2, 3)).mean()


def test_the_energy_is_the_mean_squared_norm(net):
    x_N = start()
    expected = np.mean(np.sum(x_N.double().numpy() ** 2, axis=(1, 2, 3)))
    assert float(Noise(net, x_N, LABELS).energy().detach()) == pytest.approx(expected, rel=1e-6)
    assert expected == pytest.approx(64, rel=0.1)  # C·H·W of standard normal noise


@pytest.mark.parametrize("penalty", [0.0, 0.1, 2.0])
def test_the_first_step_is_adams_against_the_gradient_of_the_objective(penalty, net):
    x_N = start().requires_grad_()
    (gradient,) = torch.autograd.grad(objective(net, x_N, LABELS, penalty), x_N)
    noise = Noise(net, x_N.detach(), LABELS)
    learn(noise, 1, penalty, lr=0.05)
    expected = x_N.detach() - 0.05 * gradient / (gradient.abs() + 1e-8)  # Kingma & Ba, after one step
    clear = gradient.abs() > 1e-6
    assert clear.float().mean() > 0.9
    torch.testing.assert_close(noise.x.detach()[clear], expected[clear], atol=1e-4, rtol=0)


def test_the_model_is_wrong_about_the_noise_and_stands_still(net):
    for i, module in enumerate(net.modules()):
        module.training = i % 2 == 0
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    before, modes = bits(net), [m.training for m in net.modules()]
    noise = Noise(net, start(), LABELS)
    learn(noise, 10, 0.1)
    assert bits(net) == before
    assert [m.training for m in net.modules()] == modes
    assert all(p.requires_grad and (p.grad == 1).all() for p in net.parameters())
    assert bits(noise.frozen) == before
    assert all(p.grad is None for p in noise.frozen.parameters())
    assert dict(noise.named_parameters()).keys() == {"x"}
    with torch.no_grad():
        was, now = (objective(net, x, LABELS, 0.1) for x in (start(), noise.x))
        wrong = [F.cross_entropy(net(x), LABELS) for x in (start(), noise.x)]
    assert now < was
    assert wrong[1] > wrong[0] + 1


def test_the_penalty_holds_the_noise(net):
    energy = []
    for penalty in (0.0, 1.0, 1e4):
        noise = Noise(net, start(), LABELS)
        learn(noise, 60, penalty)
        energy.append(float(noise.energy().detach()))
    assert energy[0] > 2 * energy[1]
    assert energy[2] < 0.05 * energy[1]


def test_classes_learned_at_once_are_those_learned_alone(net):
    both = Noise(net, start(), LABELS)
    learn(both, 5, 0.1)
    for c, part in ((3, slice(0, 16)), (5, slice(16, 32))):
        alone = Noise(net, start()[part], LABELS[part])
        learn(alone, 5, 0.1)
        torch.testing.assert_close(both.x.detach()[part], alone.x.detach(), atol=1e-3, rtol=0)
        assert both.rows([str(i) for i in range(10)]).y[part].tolist() == [c] * 16


def test_batch_statistics_move_the_copy_only(net):
    before = bits(net)
    noise = Noise(net, start(), LABELS, batch_statistics=True)
    learn(noise, 3, 0.1)
    after = bits(noise.frozen)
    moved = {name for name in after if after[name] != before[name]}
    assert moved
    assert all("running" in name or "num_batches" in name for name in moved)
    assert bits(net) == before


def test_gaussian_noise_has_the_labels_and_norms_of_the_other():
    names = [str(i) for i in range(10)]
    noise = Rows(3 * start(), LABELS, classes=names)
    drawn = gaussian_like(noise, torch.Generator().manual_seed(1))
    a, b = (rows.x(torch.arange(32)).flatten(1).numpy() for rows in (noise, drawn))
    np.testing.assert_allclose(np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1), rtol=1e-5)
    assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.1
    assert drawn.y.tolist() == LABELS.tolist()
    assert drawn.classes == tuple(names)


@dataclass(frozen=True)
class Seeing(Classification):
    """A task that keeps what it is shown."""

    shown: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def loss(self, model: nn.Module, x_B: Tensor, y_B: Tensor) -> Tensor:
        self.shown.append((x_B.detach().clone(), y_B.clone()))
        return super().loss(model, x_B, y_B)


@pytest.mark.parametrize("mix", ["shuffled", "together"])
def test_rows_of_a_terms_own_come_from_them_as_they_are_and_the_others_augmented(mix, net, train):
    own = Rows(100 + torch.arange(6.0).view(6, 1, 1, 1).expand(6, 1, 8, 8), [3] * 6, classes=train.classes)
    parts = {"own": torch.arange(6).repeat(2), "retain": torch.arange(40)}
    phase = Phase(terms=(Term("own", rows=own), Term("retain")), epochs=1, lr=1e-9, batch_size=64, mix=mix)
    task = Seeing(classes=10)
    descend(net, train, parts, task, [phase], Run(augment="crop_flip"))
    x = torch.cat([x for x, _ in task.shown])
    y = torch.cat([y for _, y in task.shown])
    ours = x.amin((1, 2, 3)) > 50
    assert sorted(x[ours, 0, 0, 0].tolist()) == sorted([100.0 + i for i in range(6)] * 2)
    assert torch.equal(x[ours].amin((1, 2, 3)), x[ours].amax((1, 2, 3)))  # no pad of a crop
    assert set(y[ours].tolist()) == {3}
    assert sorted(y[~ours].tolist()) == sorted(train.y[:40].tolist())
    there = {x.numpy().tobytes() for x in train.x(torch.arange(40))}
    assert sum(x.contiguous().numpy().tobytes() not in there for x in x[~ours]) > 20
