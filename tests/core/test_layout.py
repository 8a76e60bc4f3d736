"""Channels last: another order in memory, the same values, and nothing of it left behind."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import expunge as ex
from expunge.data import Rows
from expunge.layout import arranged, channels_last, likes_channels_last


def build(name: str, **fields) -> nn.Module:
    return ex.models.build(name, channels=1, size=8, classes=10, **fields)


@pytest.mark.parametrize(
    ("model", "fits"),
    [
        (build("mlp"), False),
        (build("convnet", width=8), False),  # normalises each image over its space
        (build("convnet", width=8, norm="batch"), True),
        (build("resnet9", width=8), True),
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


def test_inputs_keep_their_values(train: Rows) -> None:
    x = train.x(torch.arange(4)).expand(-1, 3, -1, -1)
    assert torch.equal(arranged(x, True), x)
    assert arranged(x, True).is_contiguous(memory_format=torch.channels_last)
    assert arranged(x, False) is x
    tokens = torch.zeros(4, 7, dtype=torch.long)
    assert arranged(tokens, True) is tokens
