"""Channels last: another order in memory, the same values, and nothing of it left behind."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import expunge as ex
from expunge.data import Rows
from expunge.layout import arranged, channels_last, likes_channels_last
from expunge.outputs import outputs


def build(name: str, **fields) -> nn.Module:
    return ex.models.build(name, channels=1, size=8, classes=10, **fields)


class Own(nn.Module):
    """A network as people write it; a view of maps that lie channels last is refused by PyTorch."""

    def __init__(self, channels: int, views: bool) -> None:
        super().__init__()
        self.maps = nn.Sequential(
            nn.Conv2d(channels, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.MaxPool2d(2)
        )
        self.head = nn.Linear(16 * 9, 10)
        self.views = views

    def forward(self, x: Tensor) -> Tensor:
        maps = self.maps(x)
        return self.head(maps.view(maps.size(0), -1) if self.views else maps.flatten(1))


def own(channels: int, views: bool) -> Own:
    torch.manual_seed(2)
    return Own(channels, views)


def hooked(model: nn.Sequential) -> nn.Sequential:
    """With a hook of somebody's own."""
    model[0].register_forward_hook(lambda module, args, maps: maps.view(maps.shape))
    return model


def colour(rows: Rows, channels: int) -> Rows:
    """Rows of so many channels."""
    x = rows.x(torch.arange(400)).expand(-1, channels, -1, -1)
    return Rows(x * torch.linspace(1, 0.5, channels)[:, None, None], rows.y[:400], classes=rows.classes)


@pytest.mark.parametrize(
    ("model", "fits"),
    [
        (build("mlp"), False),
        (build("convnet", width=8), False),  # normalises each image over its space
        (build("convnet", width=8, norm="batch"), True),
        (build("resnet9", width=8), True),
        (nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10)), True),
        (own(1, views=False), False),  # whose code may count on the usual order
        (nn.Sequential(nn.Conv2d(1, 8, 3), nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 8, 3))), False),
        (hooked(nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU())), False),
    ],
)
def test_convolutions_like_it_and_others_do_not(model: nn.Module, fits: bool) -> None:
    assert likes_channels_last(model) is fits


def test_weights_are_channels_last_inside_and_as_before_afterwards() -> None:
    model = build("resnet9", width=8)
    before = {name: (p.clone(), p.stride()) for name, p in model.named_parameters()}
    with channels_last(model) as last:
        assert last
        weight = next(p for p in model.parameters() if p.ndim == 4 and p.shape[1] > 1)
        assert weight.is_contiguous(memory_format=torch.channels_last)
    for name, p in model.named_parameters():
        assert p.is_contiguous(), name
        assert torch.equal(p, before[name][0]), name


def test_a_model_with_weights_of_other_shapes_keeps_them() -> None:
    """Only an image's convolution has channels that may lie last; one of a video has five dimensions."""
    model = nn.Sequential(nn.Conv3d(1, 4, 3), nn.Flatten(1, 2), nn.Conv2d(8, 8, 3))
    model[2].to(memory_format=torch.channels_last)  # by whoever made it
    with channels_last(model) as last:
        assert last
        assert model[0].weight.is_contiguous()
    assert model[2].weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_model_that_takes_views_learns_and_answers_as_one_that_does_not(train: Rows, channels: int) -> None:
    rows = colour(train, channels)
    request, task = ex.Request(rows, classes=[3]), ex.Classification(classes=10)
    answers = []
    for views in (True, False):
        model = own(channels, views)
        before = copy.deepcopy(model.state_dict())
        done = ex.unlearn(model, request, "neggrad_plus", epochs=2, lr=0.01)
        for name, value in model.state_dict().items():
            assert torch.equal(value, before[name]), name
        answers.append(outputs(done.model, task, rows))
    assert (answers[0] - outputs(own(channels, True), task, rows)).abs().max() > 0.1
    torch.testing.assert_close(answers[0], answers[1], rtol=1e-4, atol=1e-4)


def test_inputs_keep_their_values(train: Rows) -> None:
    x = train.x(torch.arange(4)).expand(-1, 3, -1, -1)
    assert torch.equal(arranged(x, True), x)
    assert arranged(x, True).is_contiguous(memory_format=torch.channels_last)
    assert arranged(x, False) is x
    tokens = torch.zeros(4, 7, dtype=torch.long)
    assert arranged(tokens, True) is tokens
