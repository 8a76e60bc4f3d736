import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from expunge.audit.distance import distance
from expunge.errors import ExpungeError


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))


def moved(model):
    other = copy.deepcopy(model)
    with torch.no_grad():
        other[0].weight.mul_(1.5)
        other[2].bias.add_(1.0)
        other[1].running_mean.add_(7.0)
    return other


def test_against_numpy(model):
    found = distance(moved(model), model)
    bias = model[2].bias.detach().numpy().astype(float)
    assert found.layers["0.weight"] == pytest.approx(0.5)
    assert found.layers["2.bias"] == pytest.approx(np.sqrt(2) / np.linalg.norm(bias), rel=1e-6)
    assert found.layers["2.weight"] == 0
    a, b = (torch.cat([p.flatten() for p in m.parameters()]).double() for m in (moved(model), model))
    assert found.total == pytest.approx(float(((a - b).norm() / b.norm()).detach()), rel=1e-6)


def test_buffers_do_not_count_however_the_weights_are_given(model):
    other = moved(model)
    expected = distance(other, model)
    assert set(expected.layers) == set(dict(model.named_parameters()))
    for a, b in [
        (other.state_dict(), model),
        (other, model.state_dict()),
        (other.state_dict(), model.state_dict()),
    ]:
        assert distance(a, b) == expected


def test_itself_is_at_zero(model):
    found = distance(model, model)
    assert found.total == 0
    assert set(found.layers.values()) == {0.0}


def test_bfloat16_is_widened(model):
    low = copy.deepcopy(model).bfloat16()
    assert 0 < distance(low, model).total < 0.01


def test_a_reference_of_zeros_has_no_relative_change():
    model, other = nn.Linear(2, 2), nn.Linear(2, 2)
    nn.init.zeros_(model.bias)
    assert distance(model, model).layers["bias"] == 0
    assert distance(other, model).layers["bias"] is None
    assert math.isfinite(distance(other, model).total)


def test_weights_that_are_not_finite(model):
    broken = copy.deepcopy(model)
    broken[0].weight.data[0, 0] = math.nan
    found = distance(broken, model)
    assert found.layers["0.weight"] is None
    assert math.isnan(found.total)


def test_tied_weights_count_once():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    other = copy.deepcopy(model)
    other[0].weight.data.mul_(2)
    assert distance(other.state_dict(), model) == distance(other, model)
    assert "1.weight" not in distance(other, model).layers


def test_models_that_do_not_match(model):
    with pytest.raises(ExpungeError, match=r"'0\.weight' has shape \(3, 5\) here, \(3, 4\) there") as caught:
        distance(nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3)), model)
    assert "'2.bias' is in only one" in str(caught.value)
