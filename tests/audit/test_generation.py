"""Judging what denoisers draw: the distance against SciPy, counts against models whose images are known, verdicts."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import nn

import expunge as ex
from expunge import ExpungeError, Rows
from expunge.audit.generation import Generation
from expunge.audit.generation.frechet import frechet_distance
from expunge.audit.generation.look import look, sheet
from expunge.audit.generation.verdict import verdict

LEVELS = (32, 128, 224)  # the grey of each class


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


def test_what_was_lost_before_unlearning_is_no_damage():
    found = verdict("mine", [hits(0, 90, seed=5)], [hits(0, seed=1), hits(0, seed=2)], [hits(96, 90, seed=3)])
    assert found.word == "within retraining's spread"


# -- the whole -----------------------------------------------------------------------------------------------------

diffusers = pytest.importorskip("diffusers")

KEPT = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0).float()


class Draws(nn.Module):
    """A denoiser that draws one grey for each condition, exactly."""

    def __init__(self, *greys: int) -> None:
        super().__init__()
        self.clean = nn.Parameter(torch.tensor([*greys, 0]) / 127.5 - 1)

    def forward(self, x, t, class_labels):
        kept = KEPT[t].view(-1, 1, 1, 1)
        return (x - kept.sqrt() * self.clean[class_labels].view(-1, 1, 1, 1)) / (1 - kept).sqrt()


@pytest.fixture
def greys() -> Rows:
    y = np.arange(30) % 3
    noise = np.random.default_rng(0).integers(-9, 10, (30, 1, 8, 8))
    return Rows((np.array(LEVELS)[y].reshape(-1, 1, 1, 1) + noise).astype(np.uint8), y, name="greys")


@pytest.fixture
def reader(greys: Rows) -> nn.Module:
    """A classifier of the mean grey: by nearest level, exactly."""
    levels = greys.scale(torch.tensor(LEVELS, dtype=torch.uint8).view(3, 1, 1, 1)).flatten()
    head = nn.Linear(1, 3)
    with torch.no_grad():
        head.weight.copy_(20 * levels.view(3, 1))
        head.bias.copy_(-10 * levels**2)
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)


def judged(greys: Rows, reader: nn.Module, models: dict, **settings) -> ex.audit:
    request = ex.Request(greys, classes=[0])
    task = ex.Diffusion(3, without=(0,), scale=greys.scale)
    how = {"samples": 5, "steps": 4, "guidance": 0.0, "classifier": reader, **settings}
    return ex.audit(models, request, unseen=greys, task=task, seeds=1, generation=how)


def test_every_number_follows_from_what_is_drawn(greys, reader):
    second, third = LEVELS[1:]
    models = {
        "original": Draws(*LEVELS),
        "retrain": Draws(second, second, third),
        "idle": Draws(*LEVELS),
        "good": Draws(third, second, third),
        "broken": Draws(second, third, third),
        "nan": Draws(second, second, third),
    }
    with torch.no_grad():
        models["nan"].clean.fill_(float("nan"))
    report = judged(greys, reader, models)
    rows = {row["method"]: row for row in report.rows}
    shares = {name: (row["recognised"], row["others"]) for name, row in rows.items()}
    assert shares["original"] == shares["idle"] == (100, 100)
    assert shares["good"] == shares["retrain"] == (0, 100)
    assert shares["broken"] == (0, 50)
    assert shares["nan"] == (None, None)
    words = {name: v["word"] for name, v in report.verdicts.items()}
    assert words == {
        "original": "no effect",
        "idle": "no effect",
        "good": "within retraining's spread",
        "broken": "model damaged",
        "nan": "model damaged",
    }
    assert list(report.rows[0])[:7] == ["method", "seed", "recognised", "others", "fid", "seconds", "verdict"]
    # constant images: the distance is that of the means and of what the rows vary by
    real = look(reader, greys.x((greys.y > 0).nonzero().flatten())).feature_ND.double().numpy()
    drawn = np.repeat(greys.scale(torch.tensor(LEVELS[1:], dtype=torch.uint8).view(2, 1, 1, 1)).flatten().numpy(), 5)
    spread = (real.std(ddof=1) - drawn.std(ddof=1)) ** 2
    assert rows["original"]["fid"] == pytest.approx((real.mean() - drawn.mean()) ** 2 + spread, abs=1e-4)
    assert rows["good"]["probability"] == pytest.approx(0, abs=1e-3)
    assert rows["idle"]["probability"] == pytest.approx(100, abs=1)
    told = " ".join(report.results["notes"])
    assert "5 images of what was to be forgotten and 10 of the rest" in told
    assert "right on 100.0 % of 30 unseen rows" in told


def test_the_report_shows_the_images(greys, reader, tmp_path):
    models = {"original": Draws(*LEVELS), "retrain": Draws(128, 128, 224), "good": Draws(224, 128, 224)}
    report = judged(greys, reader, models)
    page = report.save(tmp_path / "out").read_text()
    assert page.count("data:image/png;base64,") == 3
    assert "Images drawn by good" in page
    assert "recognised" in str(report)
    assert json.loads((tmp_path / "out" / "results.json").read_text())["generation"]["samples"] == 5
    assert "recognised,others,fid" in (tmp_path / "out" / "results.csv").read_text()


def test_without_retraining_it_cannot_say(greys, reader):
    report = judged(greys, reader, {"original": Draws(*LEVELS), "mine": Draws(224, 128, 224)})
    assert report.verdicts["mine"]["word"] == "cannot say"


def test_single_rows_cannot_be_judged_by_images(greys, reader):
    request, task = ex.Request(greys, ids=[0, 1]), ex.Diffusion(3, scale=greys.scale)
    with pytest.raises(ExpungeError, match="class by class"):
        ex.audit({"original": Draws(*LEVELS)}, request, unseen=greys, task=task, generation={"classifier": reader})


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"sample": 3}, "Did you mean 'samples'"),
        ({"samples": 1}, "samples must be a whole number, 2 or more; got 1"),
        ({"steps": 0}, "steps must be a whole number, 1 or more"),
        ({"guidance": -1}, "guidance must be 0 or more"),
        ({"classifier": 3}, "a module or the fields of a recipe"),
        ({"classifier": {"epochs": -1}}, "epochs must be"),
        ("many", "settings such as"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, told):
    with pytest.raises(ExpungeError, match=told):
        Generation.of(settings)


def test_a_recipe_is_all_that_is_needed(train, test, tmp_path):
    net = {"name": "unet", "width": 8, "multiples": [1, 1]}
    recipe = ex.Recipe(model=net, epochs=1, lr=1e-3, optimizer="adam", weight_decay=0.0, batch_size=128)
    some, unseen = train.take(torch.arange(300)), test.take(torch.arange(100))
    how = {"samples": 3, "steps": 2, "classifier": {"model": "mlp", "epochs": 2, "lr": 0.1}}
    request = ex.Request(some, classes=[3])
    report = ex.audit({}, request, unseen=unseen, recipe=recipe, seeds=1, generation=how, cache=tmp_path)
    assert [row["method"] for row in report.rows] == [
        "original",
        "retrain",
        "retrain",
        "retrain_again",
        "retrain_again",
    ]
    assert all(np.isfinite(row["fid"]) for row in report.rows)
