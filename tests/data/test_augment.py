"""Crops and flips against a slow loop over the examples."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from expunge.data.augment import augment, check_augment, draw, padding
from expunge.errors import ExpungeError, UnknownName


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def slow(x: np.ndarray, pad: int, down, right, mirrored) -> np.ndarray:
    """The same by NumPy, one example at a time."""
    out = np.empty_like(x)
    _, _, height, width = x.shape
    for b in range(len(x)):
        padded = np.pad(x[b], ((0, 0), (pad, pad), (pad, pad)))
        crop = padded[:, down[b] : down[b] + height, right[b] : right[b] + width]
        out[b] = crop[:, :, ::-1] if mirrored[b] else crop
    return out


@pytest.mark.parametrize("names", ["crop", "flip", "crop_flip"])
@pytest.mark.parametrize(
    ("shape", "pad"), [((40, 3, 32, 32), 4), ((40, 1, 8, 8), 1), ((9, 2, 28, 20), 2), ((3, 1, 5, 6), 1)]
)
def test_equals_the_loop_with_the_same_draws(names, shape, pad):
    x = torch.randn(shape, generator=seeded(1))
    assert padding(x) == pad
    used = pad if "crop" in names else 0
    draws = [t.tolist() for t in draw(shape[0], used, "flip" in names, seeded())]
    np.testing.assert_array_equal(augment(x, names, seeded()).numpy(), slow(x.numpy(), used, *draws))


def test_flip_mirrors_half_and_moves_nothing():
    x = torch.randn(2000, 1, 3, 4, generator=seeded(1))
    y = augment(x, "flip", seeded())
    same, mirrored = ((y == other).flatten(1).all(1) for other in (x, x.flip(3)))
    assert (same ^ mirrored).all()
    assert abs(mirrored.float().mean() - 0.5) < 5 * 0.5 / 2000**0.5


def test_crop_uses_every_offset_alike():
    x = torch.zeros(8100, 1, 32, 32)
    x[:, 0, 16, 16] = 1
    at = augment(x, "crop", seeded()).flatten(1).argmax(1)
    moves = torch.stack([at // 32 - 16, at % 32 - 16], 1)
    seen, counts = moves.unique(dim=0, return_counts=True)
    assert len(seen) == 81
    assert moves.min() == -4
    assert moves.max() == 4
    chi2 = ((counts - 100.0) ** 2 / 100).sum()
    assert chi2 < 80 + 5 * 160**0.5  # mean 80, variance 160 if all 81 offsets are equally likely


def test_the_border_is_zero():
    y = augment(torch.ones(500, 1, 8, 8), "crop", seeded())
    assert set(y.unique().tolist()) == {0.0, 1.0}
    assert (y.flatten(1).sum(1) >= 49).all()  # moved by at most one pixel each way


def test_generator_alone_decides_and_the_input_stays():
    x = torch.randn(16, 3, 32, 32)
    before, state = x.clone(), torch.get_rng_state()
    one, two, other = (augment(x, "crop_flip", seeded(s)) for s in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert torch.equal(x, before)
    assert torch.equal(torch.get_rng_state(), state)


def test_uint8_stays_uint8():
    x = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    assert augment(x, "crop_flip", seeded()).dtype == torch.uint8


def test_refusals():
    with pytest.raises(UnknownName, match="Did you mean 'flip'"):
        check_augment("flop")
    with pytest.raises(UnknownName):
        augment(torch.ones(2, 1, 8, 8), "rotate", seeded())
    with pytest.raises(ExpungeError, match=r"\(2, 8\)"):
        augment(torch.ones(2, 8), "flip", seeded())
