"""Judging what denoisers draw: the distance against SciPy, what a classifier sees against NumPy, and verdicts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import nn

from expunge import ExpungeError
from expunge.audit.generation.frechet import frechet_distance
from expunge.audit.generation.look import look, sheet
from expunge.audit.generation.verdict import verdict

# -- the distance --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "m", "d"), [(200, 150, 6), (40, 300, 12)])
def test_the_distance_is_that_of_scipys_matrix_root(n, m, d):
    random = np.random.default_rng(n)
    a = random.standard_normal((n, d)) @ random.standard_normal((d, d)) + random.standard_normal(d)
    b = random.standard_normal((m, d)) @ random.standard_normal((d, d))
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    shift = a.mean(0) - b.mean(0)
    expected = shift @ shift + np.trace(cov_a + cov_b - 2 * sqrtm(cov_a @ cov_b).real)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-9)


def test_the_distance_in_one_dimension_has_a_closed_form():
    random = np.random.default_rng(0)
    a, b = random.normal(1, 2, (5000, 1)), random.normal(-1, 3, (4000, 1))
    expected = (a.mean() - b.mean()) ** 2 + (a.std(ddof=1) - b.std(ddof=1)) ** 2
    assert frechet_distance(a, b) == pytest.approx(expected)


def test_the_distance_of_like_clouds_is_nothing_even_with_fewer_rows_than_features():
    a = np.random.default_rng(0).standard_normal((5, 40))
    assert frechet_distance(a, a[::-1]) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(torch.from_numpy(a), a + 1) == pytest.approx(40)


@pytest.mark.parametrize("b", [np.zeros((1, 3)), np.zeros((4, 2)), np.zeros(3), np.full((4, 3), np.nan)])
def test_the_distance_refuses_what_is_no_cloud(b):
    with pytest.raises(ExpungeError, match=r"Fréchet distance needs|NaN or infinity"):
        frechet_distance(np.zeros((4, 3)), b)


# -- looking -------------------------------------------------------------------------------------------------------


def test_features_are_what_the_last_linear_layer_gets():
    torch.manual_seed(0)
    first, last = nn.Linear(4, 5), nn.Linear(5, 3)
    net = nn.Sequential(nn.Flatten(), first, nn.ReLU(), nn.Dropout(0.5), last).train()
    x = torch.randn(7, 1, 2, 2)
    seen = look(net, x, batch_size=3)
    hidden = np.maximum(x.reshape(7, 4).numpy() @ first.weight.detach().numpy().T + first.bias.detach().numpy(), 0)
    logits = hidden @ last.weight.detach().numpy().T + last.bias.detach().numpy()
    odds = np.exp(logits - logits.max(1, keepdims=True))
    np.testing.assert_allclose(seen.feature_ND, hidden, atol=1e-5)
    np.testing.assert_allclose(seen.probability_NC, odds / odds.sum(1, keepdims=True), atol=1e-5)
    assert net.training
    assert not last._forward_pre_hooks


def test_a_classifier_without_a_linear_layer_is_refused():
    with pytest.raises(ExpungeError, match="last linear layer"):
        look(nn.Sequential(nn.Conv2d(1, 3, 2), nn.Flatten()), torch.zeros(2, 1, 2, 2))


def test_a_sheet_has_a_row_for_each_line_of_images():
    import base64
    import io

    from PIL import Image

    x = torch.linspace(-1, 1, 6).view(6, 1, 1, 1).expand(6, 1, 4, 4)
    picture = Image.open(io.BytesIO(base64.b64decode(sheet(x, 3, None).partition(",")[2])))
    assert picture.size == (18, 12)  # a border of one pixel around each
    shown = np.asarray(picture)[3::6, 3::6]
    np.testing.assert_allclose(shown, np.linspace(0, 255, 6).reshape(2, 3), atol=1)


# -- verdicts ------------------------------------------------------------------------------------------------------


def hits(recognised: float, others: float = 98, seed: int = 0) -> dict[str, np.ndarray]:
    """A model whose shares, in percent of 200 and of 1000 images, are exactly these."""
    random = np.random.default_rng(seed)
    counts = {"recognised": (200, recognised), "others": (1000, others)}
    return {
        k: random.permutation(np.repeat([100.0, 0.0], [round(n * p / 100), round(n * (1 - p / 100))]))
        for k, (n, p) in counts.items()
    }


@pytest.mark.parametrize(
    ("model", "word"),
    [
        (hits(95, seed=5), "no effect"),
        (hits(40, seed=5), "partly"),
        (hits(0.5, seed=5), "within retraining's spread"),
        (hits(0, seed=5), "within retraining's spread"),
        (hits(0, 80, seed=5), "model damaged"),
        (hits(0, 97.5, seed=5), "within retraining's spread"),
    ],
)
@pytest.mark.parametrize("retrained", [[hits(0.5, seed=1)], [hits(0.5, seed=1), hits(0, 98.2, seed=2)]])
def test_the_verdict_follows_retraining(model, word, retrained):
    found = verdict("mine", [model], retrained, [hits(96, seed=3)])
    assert found.word == word
    assert (found.low is None) == (len(retrained) == 1)  # of one retraining alone no spread is known


def test_it_says_where_it_cannot_tell():
    retrained = [hits(1, seed=1), hits(0, seed=2)]
    told = {
        name: verdict("mine", [hits(0)], retrained, [hits(start)]).sentence for name, start in (("no", 1), ("yes", 60))
    }
    assert "cannot tell forgetting from doing nothing" in told["no"]
    assert "cannot tell" not in told["yes"]


def test_what_was_lost_before_unlearning_is_no_damage():
    found = verdict("mine", [hits(0, 90, seed=5)], [hits(0, seed=1), hits(0, seed=2)], [hits(96, 90, seed=3)])
    assert found.word == "within retraining's spread"
