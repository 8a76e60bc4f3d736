"""The last layers: begun again (EU-k) or tuned on (CF-k), and nothing before them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import expunge as ex
from expunge import ExpungeError
from kit import bits


def split(model: nn.Module, k: int) -> tuple[dict, dict]:
    """Bits of what comes before the last k layers of the fixture `net`, buffers included, and of the rest."""
    late = ("head", "features.4", "features.5")[: 1 if k == 1 else 3]
    everything = bits(model)
    last = {n: b for n, b in everything.items() if n.startswith(late)}
    return {n: b for n, b in everything.items() if n not in last}, last


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("start", ["fresh", "tuned"])
@pytest.mark.parametrize("k", [1, 2])
def test_earlier_layers_stay_bit_for_bit_and_the_last_move(k, start, optimizer, net, three):
    model = ex.unlearn(net, three, "last_layers", k=k, start=start, optimizer=optimizer, epochs=1).model
    (early, last), (early_before, last_before) = split(model, k), split(net, k)
    assert early == early_before
    weights = [n for n in last if "running" not in n and "num_batches" not in n]
    assert all(last[n] != last_before[n] for n in weights)
    statistics = [n for n in last if n not in weights]
    assert bool(statistics) == (k == 2)
    assert len(early) > 5


def test_eu_k_begins_with_new_weights(net, three):
    model = ex.unlearn(net, three, "last_layers", epochs=0).model
    old, new = net.head.weight.detach(), model.head.weight.detach()
    bound = 1 / net.head.in_features**0.5  # of PyTorch's initialisation of a linear layer
    assert new.abs().max() <= bound
    assert old.abs().max() > bound
    assert abs(float(torch.corrcoef(torch.stack([old.flatten(), new.flatten()]))[0, 1])) < 0.15
    other = ex.unlearn(net, three, "last_layers", epochs=0, seed=1).model
    assert not torch.equal(other.head.weight, new)


def test_norms_of_the_last_layers_begin_again_as_well(net, three):
    model = ex.unlearn(net, three, "last_layers", epochs=0, k=2).model
    norm = model.features[5]
    assert torch.equal(norm.weight, torch.ones_like(norm.weight))
    assert torch.equal(norm.running_mean, torch.zeros_like(norm.running_mean))


def test_cf_k_goes_on_from_the_weights_there_are(net, three):
    assert bits(ex.unlearn(net, three, "last_layers", start="tuned", epochs=0).model) == bits(net)
    tuned = ex.unlearn(net, three, "last_layers", start="tuned", epochs=2, lr=0.01)
    finetuned = ex.unlearn(net, three, "finetune", region={"last": 1}, epochs=2, lr=0.01)
    assert bits(tuned.model) == bits(finetuned.model)


def test_too_many_layers_are_refused(net, three):
    with pytest.raises(ExpungeError, match="has 3 layers, so its last 4"):
        ex.unlearn(net, three, "last_layers", k=4)


def test_layers_that_cannot_begin_again_are_refused_by_name(train):
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.ones(10))

        def forward(self, x):
            return x * self.factor

    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), Scale())
    request = ex.Request(train, classes=[3])
    with pytest.raises(ExpungeError, match="Scale cannot be re-initialised"):
        ex.unlearn(model, request, "last_layers")
    ex.unlearn(model, request, "last_layers", start="tuned", epochs=1)


def test_weights_shared_with_an_earlier_layer_are_not_begun_again(train):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    model[3].weight = model[1].weight
    request = ex.Request(train, classes=[3])
    with pytest.raises(ExpungeError, match="share weights with others"):
        ex.unlearn(model, request, "last_layers", k=2, epochs=1)
    tuned = ex.unlearn(model, request, "last_layers", k=2, epochs=1, start="tuned").model
    assert torch.equal(tuned[3].weight, model[1].weight)
    assert tuned[3].weight is tuned[1].weight
    assert not torch.equal(tuned[3].bias, model[3].bias)
