"""The methods on a denoiser: the same bodies, the same loop, the same region; only the task is another."""

from __future__ import annotations

import copy

import pytest
import torch

import expunge as ex
from expunge import ExpungeError
from expunge.recipe import training_key
from expunge.task import sample
from expunge.unlearning import default_task
from kit import bits

pytest.importorskip("diffusers")

NET = {"name": "unet", "width": 8, "multiples": [1, 1], "attention": 0}
RECIPE = ex.Recipe(model=NET, epochs=14, lr=5e-3, optimizer="adam", weight_decay=0.0, batch_size=50)
ADAM = {"epochs": 1, "lr": 2e-3, "optimizer": "adam", "weight_decay": 0.0, "batch_size": 50}
SALUN = {**ADAM, "epochs": 2, "mix": "together", "alpha": 3.0, "schedule": "constant"}
METHODS = {
    "gradient_ascent": {**ADAM, "epochs": 4},
    "random_label": SALUN,
    "salun": {**SALUN, "keep": 0.5},
    "finetune": ADAM,
    "neggrad_plus": ADAM,
}


@pytest.fixture(scope="module")
def some(train):
    """So many rows as make a quick test."""
    return train.take(torch.arange(300))


@pytest.fixture
def three(some):
    return ex.Request(some, classes=[3])


@pytest.fixture(scope="module")
def original(some):
    return RECIPE(some)


@pytest.fixture(scope="module")
def done(original, some):
    request = ex.Request(some, classes=[3])
    before = bits(original)
    found = {name: ex.unlearn(original, request, name, seed=0, **fields) for name, fields in METHODS.items()}
    assert bits(original) == before
    return found


def noise_loss(model, request, index, task=None, labels=None, seed=0) -> float:
    """The mean loss on some rows, in eval mode, with the same times and noise each time."""
    task, model = task or default_task(request, model), copy.deepcopy(model).eval()
    y = request.rows.y[index] if labels is None else labels
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        return float(task.loss(model, request.rows.x(index), y).mean())


def test_training_by_the_recipe_learns_to_denoise(original, three):
    assert noise_loss(original, three, three.keep) < 0.25  # predicting nothing: 1


@pytest.mark.parametrize("name", METHODS)
def test_each_method_changes_a_copy(name, done, original, three):
    result = done[name]
    assert type(result.model) is type(original)
    assert 0 < result.moved <= 1
    assert bits(result.model) != bits(original)


def test_the_same_seed_gives_the_same_bits_and_another_one_others(done, original, three):
    again = ex.unlearn(original, three, "gradient_ascent", seed=0, **METHODS["gradient_ascent"])
    assert bits(again.model) == bits(done["gradient_ascent"].model)
    other = ex.unlearn(original, three, "gradient_ascent", seed=1, **METHODS["gradient_ascent"])
    assert bits(other.model) != bits(again.model)


@pytest.mark.parametrize("optimizer", [{"optimizer": "adamw", "weight_decay": 0.1}, {"optimizer": "sgd", "lr": 0.01}])
def test_outside_the_most_salient_weights_nothing_moves(original, three, optimizer):
    fields = {**METHODS["salun"], "epochs": 1, "batch_size": 200, "keep": 0.2, **optimizer}
    result = ex.unlearn(original, three, "salun", seed=0, **fields)
    total = sum(p.numel() for p in original.parameters())
    moved = sum(int((a != b).sum()) for a, b in zip(original.parameters(), result.model.parameters()))
    assert 0.1 * total < moved <= int(0.2 * total)


@pytest.mark.parametrize("clip", [1.0, 0.01])
def test_saliency_is_the_clipped_gradient_of_the_guided_loss(original, three, clip, monkeypatch):
    """Against autograd on the formula, written out here: times and noise are those that the run's seed draws."""
    monkeypatch.setattr(ex.Diffusion, "saliency_clip", clip)
    task, size = default_task(three, original), 20
    scores = ex.saliency(original, three, run=ex.Run(seed=4), batch_size=size, cache=False)
    net, run = copy.deepcopy(original).eval(), ex.Run(seed=4)
    named = dict(net.named_parameters())
    total, clipped = {name: torch.zeros_like(p) for name, p in named.items()}, 0
    with run.isolated():
        for part in three.forget.split(size):
            x, y = task.clean(net, three.rows.x(part)), three.rows.y[part]
            half = torch.randint(1000, ((len(x) + 1) // 2,))
            t = torch.cat([half, 999 - half])[: len(x)]
            noise = torch.randn_like(x)
            kept = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0)[t].view(-1, 1, 1, 1)
            noised = kept.sqrt() * x + (1 - kept).sqrt() * noise
            with_c = net(noised, t, class_labels=y).sample
            without = net(noised, t, class_labels=torch.full_like(y, 10)).sample
            net.zero_grad()
            (3 * with_c - 2 * without - noise).square().mean().backward()
            norm = float(torch.nn.utils.clip_grad_norm_(net.parameters(), clip))
            clipped += norm > clip
            for name, p in named.items():
                total[name] += 0 if p.grad is None else len(part) * p.grad
    assert clipped == (0 if clip == 1 else len(three.forget.split(size)))
    for name, score in scores.items():
        torch.testing.assert_close(score, total[name].abs() / len(three.forget), rtol=1e-2, atol=1e-7)


@pytest.mark.parametrize("name", ["random_label", "salun"])
def test_another_condition_is_learnt_for_the_forgotten_one(name, done, original, three):
    task = default_task(three, original)
    y = three.rows.y[three.forget]
    turned = task.another_label(y, torch.Generator().manual_seed(0))
    before = noise_loss(original, three, three.forget, labels=turned)
    after = noise_loss(done[name].model, three, three.forget, labels=turned)
    assert after < 0.7 * before
    kept = noise_loss(done[name].model, three, three.keep) / noise_loss(original, three, three.keep)
    assert kept < 1.1


def test_ascent_raises_the_loss_of_what_is_forgotten(done, original, three):
    before = noise_loss(original, three, three.forget)
    assert noise_loss(done["gradient_ascent"].model, three, three.forget) > 1.5 * before


def test_retraining_is_the_recipe_without_the_rows(some, three):
    short = ex.Recipe(**{**vars(RECIPE), "epochs": 1})
    result = ex.unlearn(short(some, seed=2), three, "retrain", recipe=short, seed=2)
    kept = [some.ids[i].item() for i in three.keep.tolist()]
    assert bits(result.model) == bits(short(some, ids=kept, seed=2))


def test_a_method_for_classifiers_says_so_and_offers_others(original, three):
    with pytest.raises(ExpungeError, match="svd_forget works on classifier; this is a diffusion") as e:
        ex.unlearn(original, three, "svd_forget")
    assert "salun" in str(e.value)


def test_a_classifier_is_no_denoiser(mlp, three):
    with pytest.raises(ExpungeError, match="does not accept inputs"):
        ex.unlearn(mlp, three, "salun", task=ex.Diffusion(10))


def test_a_second_request_does_not_redirect_to_what_is_gone(done, some):
    later = ex.Request(some, classes=[5])
    result = ex.unlearn(done["salun"].model, later, "gradient_ascent", **METHODS["gradient_ascent"])
    assert default_task(result.request).without == (3, 5)


def test_its_settings_come_from_the_recipe(original, three):
    recipe = ex.Recipe(**{**vars(RECIPE), "diffusion": {"guidance": 0.5, "scheduler": {"num_train_timesteps": 50}}})
    task = default_task(three, original, recipe)
    assert (task.guidance, task.steps, task.without) == (0.5, 50, (3,))
    assert "diffusion" in recipe.describe()
    run, index = ex.Run(), torch.arange(3)
    keys = [training_key(RECIPE, three.rows, index, run)]
    for fields in ({"guidance": 1.0, "stand_in": "next"}, {"guidance": 1.0, "condition_dropout": 0.2}):
        keys.append(training_key(ex.Recipe(**{**vars(RECIPE), "diffusion": fields}), three.rows, index, run))
    assert keys[1] == keys[0]  # the trained model does not depend on these
    assert keys[2] != keys[0]
    assert "diffusion" not in RECIPE.describe()  # so that models kept before are found
    with pytest.raises(ExpungeError, match="Did you mean 'guidance'"):
        ex.Recipe(model="unet", diffusion={"guidence": 1})


def test_images_of_a_denoiser_are_as_the_rows_are(original, three):
    task, train = default_task(three, original), three.rows
    x = sample(original, task, torch.arange(10), train.shape, steps=5)
    levels = (x * train.scale.std[0] + train.scale.mean[0]) * 255
    assert x.shape == (10, 1, 8, 8)
    torch.testing.assert_close(levels, levels.round().clamp(0, 255), atol=1e-3, rtol=0)
