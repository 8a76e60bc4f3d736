"""The denoiser: size, conditions, and what is refused before it is built."""

from __future__ import annotations

import inspect

import pytest
import torch

from expunge import ExpungeError, models
from expunge.errors import Problems, UnknownName


def test_it_is_named_apart_from_classifiers():
    assert models.names("diffusion") == ["unet"]
    assert "unet" not in models.names()


def test_the_table_has_the_defaults_of_the_code():
    from expunge.models.unet import unet

    parameters = inspect.signature(unet).parameters
    of_all = {"channels", "size", "classes"}
    assert models.fields("unet") == {k: p.default for k, p in parameters.items() if k not in of_all}


@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 32), (1, 8)])
def test_it_predicts_noise_of_the_shape_of_its_input_under_classes_and_none(channels, size):
    pytest.importorskip("diffusers")
    net = models.build("unet", channels=channels, size=size, classes=10).eval()
    x = torch.randn(2, channels, size, size)
    with torch.no_grad():
        out = net(x, torch.tensor([0, 999]), class_labels=torch.tensor([3, 10])).sample
    assert out.shape == x.shape
    assert net.config.num_class_embeds == 11


@pytest.mark.parametrize("width", [8, 16, 32])
def test_time_and_condition_reach_the_output(width):
    """Norms of single channels, as with 32 groups in 32 channels, would take both away without a trace."""
    pytest.importorskip("diffusers")
    net = models.build("unet", channels=1, size=8, classes=3, width=width, multiples=[1], attention=0).eval()
    x = torch.randn(1, 1, 8, 8).expand(3, -1, -1, -1)
    with torch.no_grad():
        out = net(x, torch.tensor([9, 9, 500]), class_labels=torch.tensor([0, 1, 0])).sample
    typical = float(out.abs().mean())
    assert float((out[0] - out[1]).abs().mean()) > 0.01 * typical
    assert float((out[0] - out[2]).abs().mean()) > 0.01 * typical


def test_it_has_about_a_million_parameters():
    pytest.importorskip("diffusers")
    with torch.device("meta"):
        net = models.build("unet", channels=1, size=28, classes=10)
    assert 0.9e6 < sum(p.numel() for p in net.parameters()) < 1.4e6


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"size": 30}, "30 is not a multiple of 4"),
        ({"size": 4}, "needs images of at least 8x8 pixels, not 4x4: resize them."),
        ({"width": 12}, "width must be a multiple of 8"),
        ({"multiples": []}, "at least 1|one level at least"),
        ({"attention": 4}, "has 3 levels; attention=4"),
        ({"attention": -1}, "whole number of at least 0"),
    ],
)
def test_what_cannot_be_built_is_told_first(fields, told):
    with pytest.raises(Problems, match=told):
        models.check("unet", **{"channels": 1, "size": 28, **fields})


def test_a_misspelt_name_offers_it():
    with pytest.raises(UnknownName, match="'unet'"):
        models.build("u-net")
    with pytest.raises(ExpungeError, match="Did you mean 'multiples'"):
        models.check("unet", multiple=[1])
