"""Judging what denoisers draw, from end to end: on models whose images are known, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

import expunge as ex
from expunge import ExpungeError, Rows
from expunge.audit.generation import Generation
from expunge.audit.generation.look import look
from expunge.audit.lineup import Entrant
from expunge.experiment.assemble import from_dict

pytest.importorskip("diffusers")

LEVELS = (32, 128, 224)  # the grey of each class

KEPT = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0).float()


class Draws(nn.Module):
    """A denoiser that draws one grey for each condition, exactly."""

    def __init__(self, *greys: int) -> None:
        super().__init__()
        self.clean = nn.Parameter(torch.tensor([*greys, 0]) / 127.5 - 1)

    def forward(self, x, t, class_labels):
        kept = KEPT[t].view(-1, 1, 1, 1)
        return (x - kept.sqrt() * self.clean[class_labels].view(-1, 1, 1, 1)) / (1 - kept).sqrt()


def drawn(seed: int) -> Rows:
    y = np.arange(30) % 3
    noise = np.random.default_rng(seed).integers(-9, 10, (30, 1, 8, 8))
    return Rows((np.array(LEVELS)[y].reshape(-1, 1, 1, 1) + noise).astype(np.uint8), y, name="greys")


@pytest.fixture
def greys() -> Rows:
    return drawn(0)


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
    return ex.audit(models, request, unseen=drawn(1), task=task, seeds=1, generation=how)


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


def test_a_method_that_failed_is_not_taken_for_the_original_that_stands_in_for_its_model(greys, reader):
    original, sound = Draws(*LEVELS), {"retrain": Draws(128, 128, 224), "idle": Draws(*LEVELS)}
    alone = judged(greys, reader, {"original": original, **sound})
    report = judged(
        greys, reader, {"original": original, **sound, "wild": Entrant(original, failed="The loss is nan.")}
    )
    entries = {entry["method"]: entry for entry in report.results["models"]}
    wild = entries.pop("wild")
    assert all(told == {"failed": "The loss is nan."} for told in wild["measurements"].values())
    assert "samples" not in wild
    assert wild["hash"] is None
    told = report.verdicts["wild"]
    assert (told["word"], told["sentence"]) == ("model damaged", "There is no model to judge: The loss is nan.")
    assert list(entries.values()) == alone.results["models"]  # the others are as they are without it
    assert {name: v for name, v in report.verdicts.items() if name != "wild"} == alone.verdicts


def test_the_report_shows_the_images(greys, reader, tmp_path):
    models = {"original": Draws(*LEVELS), "retrain": Draws(128, 128, 224), "good": Draws(224, 128, 224)}
    report = judged(greys, reader, models)
    page = report.save(tmp_path / "out").read_text()
    assert page.count("data:image/png;base64,") == 3
    assert "Images drawn by good" in page
    assert "recognised" in str(report)
    assert json.loads((tmp_path / "out" / "results.json").read_text())["generation"]["samples"] == 5
    assert "recognised,others,fid" in (tmp_path / "out" / "results.csv").read_text()


class Refuses:
    """A recipe of its own that must not be reached."""

    def __call__(self, data, ids, seed):
        raise AssertionError("trained before the settings were looked at")


class Untouched(Draws):
    """A denoiser that counts how often it is asked."""

    asked = 0

    def forward(self, x, t, class_labels):
        type(self).asked += 1
        return super().forward(x, t, class_labels)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"steps": 1001}, "generation.steps must be from 1 to 1000, the model's noise levels; got 1001"),
        ({"classifier": nn.Sequential(nn.Flatten(), nn.Linear(64, 2))}, "generation.classifier: .* has 2 outputs, but"),
        ({"classifier": nn.Sequential(nn.Flatten(), nn.Linear(64, 9))}, "generation.classifier: .* has 9 outputs, but"),
        ({"classifier": nn.Linear(3, 3)}, "generation.classifier: The model does not accept inputs of shape"),
        ({"classifier": nn.Sequential(nn.Conv2d(1, 3, 8), nn.Flatten())}, "generation.classifier: .*last linear layer"),
        ({"classifier": {"model": "lenett"}}, "generation.classifier: .*Did you mean 'lenet'"),
    ],
)
def test_what_cannot_be_drawn_or_looked_at_is_refused_before_compute(greys, settings, told):
    request, task = ex.Request(greys, classes=[0]), ex.Diffusion(3, scale=greys.scale)
    how = {"samples": 3, "steps": 4, **settings}
    before, asked = torch.get_rng_state(), Untouched.asked
    with pytest.raises(ExpungeError, match=told):
        ex.audit(
            {"original": Untouched(*LEVELS)}, request, unseen=drawn(1), task=task, recipe=Refuses(), generation=how
        )
    assert Untouched.asked - asked <= 2  # the trial of two rows alone
    assert torch.get_rng_state().equal(before)


def test_all_that_does_not_fit_is_told_at_once(greys):
    request, task = ex.Request(greys, ids=[0, 1]), ex.Diffusion(3, scale=greys.scale)
    how = {"steps": 5000, "classifier": nn.Linear(3, 3)}
    with pytest.raises(ExpungeError) as e:
        ex.audit({"original": Draws(*LEVELS)}, request, unseen=drawn(1), task=task, generation=how)
    assert all(word in str(e.value) for word in ("class by class", "generation.steps", "generation.classifier"))


def test_a_denoiser_that_fails_otherwise_than_by_nan_is_not_called_damaged(greys, reader):
    class Stops(Draws):
        def forward(self, x, t, class_labels):
            if len(x) > 10:  # more than the trial shows
                raise ExpungeError("out of paper")
            return super().forward(x, t, class_labels)

    with pytest.raises(ExpungeError, match="out of paper"):
        judged(greys, reader, {"original": Stops(*LEVELS)}, samples=20)


def test_a_classifier_is_not_judged_by_what_it_draws(greys, reader):
    request = ex.Request(greys, classes=[0])
    with pytest.raises(ExpungeError, match="generation says how images of denoisers are drawn"):
        ex.audit({"original": reader}, request, unseen=drawn(1), recipe=Refuses(), generation={"samples": 5})


def test_an_experiment_tells_it_before_anything_is_trained(tmp_path):
    data, model = {"name": "digits", "limit": 100}, {"name": "unet", "width": 8, "multiples": [1, 1]}
    audit = {"generation": {"steps": 5000, "classifier": {"model": "mlp"}}}
    config = {"data": data, "model": model, "request": {"classes": [3]}, "recipe": {"epochs": 1}, "audit": audit}
    with pytest.raises(ExpungeError, match=r"audit: generation\.steps must be from 1 to 1000"):
        from_dict({**config, "out": str(tmp_path)})
    with pytest.raises(ExpungeError, match="audit: generation says how images of denoisers"):
        from_dict({**config, "model": {"name": "mlp"}, "out": str(tmp_path)})
    audit["generation"]["steps"] = 5
    assert from_dict({**config, "out": str(tmp_path)}).terms.generation.steps == 5


def test_without_retraining_it_cannot_say(greys, reader):
    report = judged(greys, reader, {"original": Draws(*LEVELS), "mine": Draws(224, 128, 224)})
    assert report.verdicts["mine"]["word"] == "cannot say"


def test_single_rows_cannot_be_judged_by_images(greys, reader):
    request, task = ex.Request(greys, ids=[0, 1]), ex.Diffusion(3, scale=greys.scale)
    with pytest.raises(ExpungeError, match="class by class"):
        ex.audit({"original": Draws(*LEVELS)}, request, unseen=drawn(1), task=task, generation={"classifier": reader})


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"sample": 3}, "Did you mean 'samples'"),
        ({"samples": 1}, "samples must be a whole number, 2 or more; got 1"),
        ({"steps": 0}, "steps must be a whole number, 1 or more"),
        ({"guidance": -1}, "guidance must be 0 or more"),
        ({"classifier": 3}, "a module or the fields of a recipe"),
        ({"classifier": {"epochs": -1}}, "epochs must be"),
        ({"classifier": {"epoch": 1}}, "Did you mean 'epochs'"),
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
    assert "too seldom to judge by" in " ".join(report.results["notes"])  # two epochs do not make a good classifier
