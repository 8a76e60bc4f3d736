"""Boundary Shrink and Expand: the labels that are taught, by closed form, and the output that comes and goes."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import expunge as ex
from expunge import Classification, ExpungeError, Region, Request, Rows
from expunge.surrogate.neighbour import neighbours
from kit import Recording, bits

METHODS = ("boundary_shrink", "boundary_expand")


@dataclass(frozen=True)
class Seeing(Classification):
    """A task that keeps the labels a model in training is taught, and its number of outputs."""

    shown: list[tuple[Tensor, int]] = field(default_factory=list)

    def loss(self, model: nn.Module, x_B: Tensor, y_B: Tensor) -> Tensor:
        if model.training:
            self.shown.append((y_B.clone(), model(x_B).shape[1]))
        return super().loss(model, x_B, y_B)


def linear(train: Rows) -> nn.Module:
    """A softmax regression, whose gradient with respect to the input has a closed form."""
    with ex.Run(seed=0).isolated():
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    optimizer = torch.optim.SGD(model.parameters(), 0.2)
    for _ in range(150):
        optimizer.zero_grad()
        F.cross_entropy(model(train.x(torch.arange(len(train)))), train.y).backward()
        optimizer.step()
    return model.eval()


def brute_force(model: nn.Module, rows: Rows, index: Tensor, step: float, allowed: list[int]) -> np.ndarray:
    """One step along the sign of (softmax - onehot) W, then the best of the allowed logits."""
    w, b = (p.detach().double().numpy() for p in model[1].parameters())
    x = rows.x(index).flatten(1).double().numpy()
    z = x @ w.T + b
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    p[np.arange(len(p)), rows.y[index]] -= 1
    moved = x + step * np.sign(p @ w)
    scores = moved @ w.T + b
    return np.array(allowed)[scores[:, allowed].argmax(1)]


# -- the neighbouring class ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [[3], [3, 5]])
def test_labels_are_those_beyond_the_nearest_boundary(classes, train):
    model, task = linear(train), Seeing(classes=10)
    request = Request(train, classes=classes)
    allowed = [c for c in range(10) if c not in classes]
    unit = 1.0 if train.scale is None else 1 / train.scale.std[0]
    expected = brute_force(model, train, request.forget, 0.1 * unit, allowed)
    result = ex.unlearn(model, request, "boundary_shrink", task=task, epochs=1)
    told = torch.cat([y for y, _ in task.shown]).numpy()
    assert sorted(told) == sorted(expected)
    assert not set(told) & set(classes)
    assert len(set(told)) > 2
    shares = {str(c): round(float(np.mean(expected == c)), 4) for c in sorted(set(expected))}
    assert result.log.facts["boundary_shrink"]["taught"] == pytest.approx(shares, abs=1e-4)


@pytest.mark.parametrize("step", [1e-6, 0.2, 3.0])
def test_row_by_row_they_are_as_by_hand_and_never_the_own_one(step, train):
    model = linear(train)
    index = (train.y == 8).nonzero().flatten()
    allowed = torch.ones(10, dtype=torch.bool)
    allowed[8] = False
    plain = Rows(train.x(torch.arange(len(train))), train.y, classes=train.classes)  # no scale: units of the inputs
    ours = neighbours(model, Classification(10), plain, index, step, allowed, 50).numpy()
    assert (ours == brute_force(model, plain, index, step, [c for c in range(10) if c != 8])).mean() > 0.99
    assert 8 not in ours
    if step == 1e-6:  # the step crosses no boundary: the second best logit
        with torch.no_grad():
            z = model(plain.x(index)).numpy()
        z[:, 8] = -np.inf
        assert (ours == z.argmax(1)).mean() > 0.99


def test_the_step_is_of_pixels_from_0_to_1_where_images_are_scaled(train):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (60, 1, 8, 8), generator=generator, dtype=torch.uint8)
    rows = Rows(images, torch.arange(60) % 3)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).eval()
    allowed = torch.tensor([True, True, False])
    index = torch.arange(2, 60, 3)
    ours = neighbours(model, Classification(3), rows, index, 0.3, allowed, 7).numpy()
    assert (ours == brute_force(model, rows, index, 0.3 / rows.scale.std[0], [0, 1])).all()
    assert (ours != brute_force(model, rows, index, 0.0, [0, 1])).any()


def test_another_default_dtype_gives_the_same_labels():
    images = torch.randint(0, 256, (60, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    rows, model = Rows(images, torch.arange(60) % 3), nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).eval()
    given = model, Classification(3), rows, torch.arange(60), 0.3, torch.ones(3, dtype=torch.bool), 7
    expected = neighbours(*given)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(neighbours(*given), expected)
    finally:
        torch.set_default_dtype(torch.float32)


# -- what is read ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_only_forget_rows_are_learnt_from(name, net, train, three):
    recording = Recording.of(train)
    request = Request(recording, classes=[3])
    recording.seen.clear()
    ex.unlearn(net, request, name, epochs=2)
    assert sorted(set(recording.seen) - set(three.keep[:2].tolist())) == three.forget.tolist()


# -- the output that comes and goes ----------------------------------------------------------------------------------


def test_expand_teaches_the_new_output_and_takes_it_away_again(mlp, train, three):
    task, rows = Seeing(classes=10), Recording.of(train)
    request = Request(rows, classes=[3])
    rows.seen.clear()
    result = ex.unlearn(mlp, request, "boundary_expand", task=task, epochs=2, batch_size=50, lr=0.01, seed=5)
    labels, outputs = zip(*task.shown)
    assert set(torch.cat(labels).tolist()) == {10}
    assert set(outputs) == {11}
    index = torch.tensor([i for i in rows.seen if i in set(three.forget.tolist())])
    # by hand: the head as a matrix with one more row, which the first step shows to start within the usual bounds
    hand = copy.deepcopy(mlp).train()
    head = [m for m in hand.modules() if isinstance(m, nn.Linear)][-1]
    drawn = ex.Run(seed=5).generator("one more output")
    bound = head.in_features**-0.5
    rows_new = [(torch.rand(1, *p.shape[1:], generator=drawn) * 2 - 1) * bound for p in (head.weight, head.bias)]
    w, b = (torch.cat([p.detach(), r]).requires_grad_() for p, r in zip((head.weight, head.bias), rows_new))
    body = [p for m in hand.modules() if m is not head for p in m.parameters(recurse=False)]
    optimizer = torch.optim.SGD([*body, w, b], 0.01, momentum=0.9)
    features: list[Tensor] = []
    head.register_forward_pre_hook(lambda m, args: features.append(args[0]))
    for i_B in (batch for epoch in index.chunk(2) for batch in epoch.tensor_split(-(-len(epoch) // 50))):
        hand(train.x(i_B))
        logits = features.pop() @ w.T + b
        loss = (torch.logsumexp(logits, 1) - logits[:, 10]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    ours = [m for m in result.model.modules() if isinstance(m, nn.Linear)][-1]
    assert (ours.out_features, tuple(ours.weight.shape), tuple(ours.bias.shape)) == (10, (10, 32), (10,))
    torch.testing.assert_close(ours.weight, w.detach()[:10], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(ours.bias, b.detach()[:10], atol=1e-5, rtol=1e-4)
    assert float((ours.weight - head.weight).abs().max()) > 1e-3
    assert repr(result.model) == repr(mlp)


@pytest.mark.parametrize("name", ["allcnn", "resnet9", "vit_tiny"])
def test_heads_of_all_kinds_are_widened_and_narrowed(name, train):
    small = {"allcnn": {"width": 4}, "resnet9": {"width": 4}, "vit_tiny": {}}[name]
    with ex.Run(seed=0).isolated():
        model = ex.models.build(name, channels=1, size=28, classes=10, **small)
    images = torch.randint(0, 256, (60, 1, 28, 28), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    request = Request((images, torch.arange(60) % 10), classes=[3])
    result = ex.unlearn(model, request, "boundary_expand", epochs=1)
    assert repr(result.model) == repr(model)
    assert result.moved > 0.5
    with torch.no_grad():
        assert result.model(request.rows.x(torch.arange(4))).shape == (4, 10)


def test_no_passes_leave_the_original(net, three):
    for name in METHODS:
        assert bits(ex.unlearn(net, three, name, epochs=0).model) == bits(net)


def test_a_region_of_masks_has_room_for_the_new_output(net, train, three):
    scores = {n: torch.rand(p.shape, generator=torch.Generator().manual_seed(1)) for n, p in net.named_parameters()}
    region = Region.top(scores, 0.3)
    result = ex.unlearn(net, three, "boundary_expand", region=region, epochs=1)
    for name, p in net.named_parameters():
        outside = ~region.masks[name]
        q = dict(result.model.named_parameters())[name]
        assert torch.equal(p[outside], q[outside])
    assert 0.1 < result.moved <= 0.3


# -- refusals ----------------------------------------------------------------------------------------------------------


class Tied(nn.Module):
    """Its last layer shares its weights with another."""

    def __init__(self) -> None:
        super().__init__()
        self.flat, self.first, self.last = nn.Flatten(), nn.Linear(64, 64), nn.Linear(64, 10)
        self.other = nn.Linear(64, 10)
        self.other.weight = self.last.weight
        self.first, self.other, self.last = self.first, self.other, self.last

    def forward(self, x):
        return self.last(self.first(self.flat(x))) + self.other(self.flat(x))


class Fixed(nn.Module):
    """Cuts the logits to ten, however many there are."""

    def __init__(self) -> None:
        super().__init__()
        self.flat, self.last = nn.Flatten(), nn.Linear(64, 10)

    def forward(self, x):
        return self.last(self.flat(x))[:, :10]


def test_last_layers_that_cannot_be_widened_are_refused(train, three):
    normed = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.BatchNorm1d(10))
    hidden = nn.Sequential(nn.Flatten(), parametrizations.weight_norm(nn.Linear(64, 10)))
    grouped = nn.Sequential(
        nn.Conv2d(1, 10, 8), nn.Flatten(), nn.Unflatten(1, (10, 1, 1)), nn.Conv2d(10, 10, 1, groups=10)
    )
    cases = {
        "shares its weights": Tied(),
        "does not make one more logit": Fixed(),
        "one more logit.*BatchNorm|one more logit": normed,
        r"cannot be given one more output; it must be nn.Linear": hidden,
        "of one group": nn.Sequential(grouped, nn.Flatten()),
    }
    for why, model in cases.items():
        with pytest.raises(ExpungeError, match=why):
            ex.unlearn(model, three, "boundary_expand")


def test_inputs_without_a_gradient_and_a_step_of_nothing_are_refused():
    model = nn.Sequential(nn.EmbeddingBag(20, 8), nn.Linear(8, 3))
    rows = Rows(torch.randint(0, 20, (30, 5)), torch.arange(30) % 3)
    with pytest.raises(ExpungeError, match=r"tokens .* which have no gradient"):
        ex.unlearn(model, Request(rows, classes=[1]), "boundary_shrink")
    with pytest.raises(ExpungeError, match="step must be above 0"):
        ex.methods.BoundaryShrink(step=0.0)


def test_it_expands_in_the_salient_weights_of_the_model_before_it_grows(mlp, three):
    result = ex.unlearn(mlp, three, "boundary_expand", region="saliency", share=0.3)
    masks = ex.Region.top(ex.saliency(mlp, three), 0.3).masks
    for name, p in mlp.named_parameters():
        assert torch.equal(result.model.get_parameter(name)[~masks[name]], p[~masks[name]]), name
    assert 0 < result.moved <= 0.3
