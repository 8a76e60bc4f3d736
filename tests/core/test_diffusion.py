"""Diffusion: noise, conditions and losses against NumPy, sampling against the closed form, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torch import nn

import expunge as ex
from expunge import ExpungeError, Rows
from expunge.errors import MissingExtra

diffusers = pytest.importorskip("diffusers")

from expunge.task import (  # noqa: E402
    Diffusion,
    is_denoiser,
    noising,
    sample,
    task_of,
)
from expunge.task.sampling import NoImage  # noqa: E402

STEPS = 1000
BETAS = np.linspace(1e-4, 0.02, STEPS)  # Ho et al. 2020
KEPT = np.cumprod(1 - BETAS)  # ᾱ_t


class Probe(nn.Module):
    """A denoiser with one number for each condition, which remembers what it was shown."""

    def __init__(self, conditions: int = 4) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.linspace(-0.5, 0.7, conditions))
        self.seen: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = []

    def forward(self, x, t, class_labels):
        self.seen.append((x.detach().clone(), t.clone(), class_labels.clone()))
        return 0.3 * x + self.value[class_labels].view(-1, 1, 1, 1)


@pytest.fixture
def x() -> torch.Tensor:
    return torch.rand((40, 1, 4, 4), generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture
def y() -> torch.Tensor:
    return torch.arange(40) % 3


def noise_in(noised: torch.Tensor, clean: torch.Tensor, t: torch.Tensor) -> np.ndarray:
    kept = KEPT[t.numpy()].reshape(-1, 1, 1, 1)
    return (noised.double().numpy() - np.sqrt(kept) * clean.double().numpy()) / np.sqrt(1 - kept)


def test_the_loss_is_the_mean_squared_error_of_the_noise_row_by_row(x, y):
    probe, task = Probe().eval(), Diffusion(3)
    torch.manual_seed(1)
    loss = task.loss(probe, x, y)
    noised, t, condition = probe.seen[0]
    noise = noise_in(noised, x, t)
    value = probe.value.detach().double().numpy()[y.numpy()].reshape(-1, 1, 1, 1)
    expected = ((0.3 * noised.double().numpy() + value - noise) ** 2).mean((1, 2, 3))
    np.testing.assert_allclose(loss.detach().numpy(), expected, rtol=2e-3, atol=1e-4)
    assert condition.equal(y)  # nothing is dropped in eval mode
    assert abs(noise.mean()) < 0.2
    assert abs(noise.std() - 1) < 0.1


def test_times_are_antithetic_and_reach_both_ends(x, y):
    probe = Probe().eval()
    Diffusion(3).loss(probe, x, y)
    t = probe.seen[0][1]
    assert (t[:20] + t[20:]).eq(STEPS - 1).all()
    torch.manual_seed(0)
    many = noising.antithetic(4001, STEPS, torch.device("cpu"))
    assert len(many) == 4001
    assert (int(many.min()), int(many.max())) == (0, STEPS - 1)
    assert chisquare(np.bincount(many.numpy() // 100)).pvalue > 1e-3


def test_a_redirected_row_has_the_models_own_prediction_as_target_without_gradient(x, y):
    probe, task = Probe().eval(), Diffusion(3)
    other = (y + 1) % 3
    loss = task.loss(probe, x, task.redirected(y, other))
    value = probe.value.detach()
    np.testing.assert_allclose(loss.detach(), (value[y] - value[other]) ** 2, rtol=1e-5)  # the same noised input
    (first, t, _), (second, t2, _) = probe.seen
    assert first.equal(second)
    assert t.equal(t2)
    gradient = torch.autograd.grad(loss.sum(), probe.value)[0].numpy()
    expected = np.zeros(4)
    np.add.at(expected, y.numpy(), 2 * (value[y] - value[other]).numpy())  # nothing reaches the other condition
    np.testing.assert_allclose(gradient, expected, atol=1e-4)


def test_a_row_redirected_to_its_own_condition_loses_nothing(x, y):
    task = Diffusion(3, condition_dropout=0.0)
    probe = Probe()
    assert task.loss(probe.train(), x, task.redirected(y, y)).abs().max() < 1e-12


def test_plain_and_redirected_rows_may_share_a_batch(x, y):
    probe, task = Probe().eval(), Diffusion(3)
    other = (y + 1) % 3
    mixed = torch.where(torch.arange(40) < 15, task.redirected(y, other), y)
    loss = task.loss(probe, x, mixed)
    noised, t, _ = probe.seen[0]
    value = probe.value.detach()
    np.testing.assert_allclose(loss[:15].detach(), ((value[y] - value[other]) ** 2)[:15], rtol=1e-5)
    plain = 0.3 * noised.numpy() + value[y].numpy().reshape(-1, 1, 1, 1) - noise_in(noised, x, t)
    np.testing.assert_allclose(loss[15:].detach(), (plain**2).mean((1, 2, 3))[15:], rtol=2e-3, atol=1e-4)


def test_in_training_a_share_of_conditions_is_dropped_independently_for_prediction_and_target():
    x = torch.zeros(4000, 1, 1, 1)
    y = torch.zeros(4000, dtype=torch.long)
    probe, task = Probe().train(), Diffusion(3, condition_dropout=0.1)
    torch.manual_seed(0)
    task.loss(probe, x, task.redirected(y, y + 1))
    own, other = (seen[2] == 3 for seen in probe.seen)
    for dropped in (own, other):
        assert abs(float(dropped.float().mean()) - 0.1) < 0.02
    one_only = float((own ^ other).float().mean())
    assert abs(one_only - 2 * 0.1 * 0.9) < 0.025


def test_saliency_follows_the_guided_prediction(x, y):
    probe, task = Probe().eval(), Diffusion(3, guidance=2.0)
    loss = task.saliency_loss(probe, x, y)
    noised, t, condition = (part[:40] for part in probe.seen[0])
    assert condition.equal(y)
    assert (probe.seen[0][2][40:] == 3).all()
    value = probe.value.detach().numpy()
    guided = 3 * value[y.numpy()] - 2 * value[3]
    expected = (0.3 * noised.numpy() + guided.reshape(-1, 1, 1, 1) - noise_in(noised, x, t)) ** 2
    np.testing.assert_allclose(loss.detach(), expected.mean((1, 2, 3)), rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
def test_the_target_is_what_the_scheduler_says(x, y, kind):
    probe, task = Probe().eval(), Diffusion(3, scheduler={"prediction_type": kind})
    loss = task.loss(probe, x, y).detach().numpy()
    noised, t, _ = probe.seen[0]
    noise, clean, kept = noise_in(noised, x, t), x.numpy(), KEPT[t.numpy()].reshape(-1, 1, 1, 1)
    target = {"epsilon": noise, "sample": clean, "v_prediction": np.sqrt(kept) * noise - np.sqrt(1 - kept) * clean}
    value = probe.value.detach().numpy()[y.numpy()].reshape(-1, 1, 1, 1)
    expected = ((0.3 * noised.numpy() + value - target[kind]) ** 2).mean((1, 2, 3))
    np.testing.assert_allclose(loss, expected, rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["EulerDiscreteScheduler", "PNDMScheduler", "DDIMScheduler"])
def test_schedulers_for_drawing_add_noise_as_in_training(x, y, kind):
    """By their own `add_noise` Euler's would not scale the image."""
    given = getattr(diffusers, kind)(beta_start=1e-4, beta_end=0.02, num_train_timesteps=STEPS)
    probe = Probe().eval()
    Diffusion(3, scheduler=given).loss(probe, x, y)
    noised, t, _ = probe.seen[0]
    noise = noise_in(noised, x, t)
    assert abs(noise.std() - 1) < 0.1


def test_inputs_are_brought_into_the_range_of_diffusers_and_back(digits_pair):
    train, _ = digits_pair
    task = Diffusion(10, scale=train.scale)
    x = train.x(torch.arange(50))
    clean = task.clean(Probe(), x)
    stored = train.source[:50].float()
    np.testing.assert_allclose(clean, stored / 127.5 - 1, atol=1e-5)
    np.testing.assert_allclose(task.inputs(clean), x, atol=1e-5)


def test_another_condition_is_never_the_own_nor_one_that_is_gone():
    task, generator = Diffusion(5, without=(3,)), torch.Generator().manual_seed(0)
    y = torch.full((4000,), 3)
    own, other = task.conditions(task.another_label(y, generator))
    assert own.equal(y)
    counts = np.bincount(other.numpy(), minlength=5)
    assert counts[3] == 0
    assert chisquare(np.delete(counts, 3)).pvalue > 1e-3


def test_the_next_condition_skips_what_is_gone():
    task = Diffusion(4, without=(1, 2), stand_in="next")
    own, other = task.conditions(task.another_label(torch.arange(4), torch.Generator()))
    assert own.tolist() == [0, 1, 2, 3]
    assert other.tolist() == [3, 3, 3, 0]
    with pytest.raises(ExpungeError, match="all other classes are gone"):
        Diffusion(2, without=(1,), stand_in="next").another_label(torch.tensor([0]), torch.Generator())


def test_plain_conditions_are_not_redirected():
    task = Diffusion(7)
    own, other = task.conditions(torch.arange(8))  # the classes, and none
    assert own.tolist() == list(range(8))
    assert other.tolist() == [-1] * 8


def test_scores_prefer_the_condition_that_explains_the_image():
    class Knows(nn.Module):
        """The exact denoiser of two images: under condition c all noise is what is not image c."""

        def forward(self, x, t, class_labels):
            clean = torch.where(class_labels < 1, -1.0, 1.0).view(-1, 1, 1, 1)
            kept = torch.tensor(KEPT, dtype=torch.float32)[t].view(-1, 1, 1, 1)
            return (x - kept.sqrt() * clean) / (1 - kept).sqrt()

    x = torch.cat([torch.full((3, 1, 2, 2), -1.0), torch.full((2, 1, 2, 2), 1.0)])
    assert Diffusion(2).scores(Knows(), x).argmax(1).tolist() == [0, 0, 0, 1, 1]


class Exact(nn.Module):
    """The exact denoiser of one image for each condition."""

    def forward(self, x, t, class_labels):
        clean = torch.tensor([-0.8, 0.1, 0.6, 0.0])[class_labels].view(-1, 1, 1, 1)
        kept = torch.tensor(KEPT, dtype=torch.float32)[t].view(-1, 1, 1, 1)
        return (x - kept.sqrt() * clean) / (1 - kept).sqrt()


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_sampling_with_the_exact_denoiser_gives_the_images(eta):
    made = sample(Exact(), Diffusion(3), torch.tensor([0, 1, 2, 0, 3]), (1, 2, 2), steps=10, guidance=0.0, eta=eta)
    expected = torch.tensor([-0.8, 0.1, 0.6, -0.8, 0.0]).view(-1, 1, 1, 1).expand(5, 1, 2, 2)
    torch.testing.assert_close(made, expected, atol=1e-3, rtol=0)


def test_each_step_is_ddim_with_the_noise_that_the_clipped_image_leaves():
    """Against the formula in NumPy, with a denoiser under which the clean image would leave [-1, 1] on the way."""
    probe, steps = Probe(), 5
    made = sample(probe, Diffusion(3), torch.tensor([0, 2]), (1, 2, 2), steps=steps, guidance=2.0, seed=3)
    x = torch.randn((2, 1, 2, 2), generator=torch.Generator().manual_seed(3)).double().numpy()
    value = probe.value.detach().double().numpy()
    shift = (3 * value[[0, 2]] - 2 * value[3]).reshape(-1, 1, 1, 1)
    clipped = False
    for k in range(steps):
        t = 1000 - k * (1000 // steps) - 1
        before, after = KEPT[t], KEPT[t - 1000 // steps] if k + 1 < steps else 1.0
        clean = (x - np.sqrt(1 - before) * (0.3 * x + shift)) / np.sqrt(before)
        clipped |= bool((abs(clean) > 1).any())
        clean = clean.clip(-1, 1)
        noise = (x - np.sqrt(before) * clean) / np.sqrt(1 - before)
        x = np.sqrt(after) * clean + np.sqrt(1 - after) * noise
    assert clipped
    np.testing.assert_allclose(made, x, atol=1e-4)


def test_guidance_moves_away_from_no_condition():
    made = sample(Exact(), Diffusion(3), torch.tensor([1, 2]), (1, 2, 2), steps=40, guidance=0.5)
    assert made[:, 0, 0, 0].tolist() == pytest.approx([0.15, 0.9], abs=0.02)  # 1.5 c - 0.5 · 0


def test_an_image_depends_on_seed_and_place_alone():
    net = ex.models.build("unet", channels=1, size=8, classes=3, width=8, multiples=[1, 1])
    task, c = Diffusion(3), torch.tensor([0, 1, 2, 1])
    one = sample(net, task, c, (1, 8, 8), steps=3)
    torch.testing.assert_close(sample(net, task, c, (1, 8, 8), steps=3, batch_size=3), one, atol=1e-4, rtol=0)
    assert sample(net, task, c, (1, 8, 8), steps=3).equal(one)
    assert not sample(net, task, c, (1, 8, 8), steps=3, seed=1).equal(one)
    assert net.training  # left as it was


def test_conditions_may_be_a_list():
    made = sample(Exact(), Diffusion(3), [2, 0], (1, 2, 2), steps=4)
    assert made.equal(sample(Exact(), Diffusion(3), torch.tensor([2, 0]), (1, 2, 2), steps=4))
    assert sample(Exact(), Diffusion(3), [], (1, 2, 2), steps=4).shape == (0, 1, 2, 2)


@pytest.mark.parametrize("conditions", [["3"], [[3]], [0.5], 3, None, [True]])
def test_what_is_no_list_of_conditions_is_refused(conditions):
    with pytest.raises(ExpungeError, match="Conditions must be whole numbers, one for each image"):
        sample(Exact(), Diffusion(3), conditions, (1, 2, 2), steps=4)


def test_a_damaged_model_draws_no_image_and_that_is_an_error_of_its_own():
    class Broken(nn.Module):
        def forward(self, x, t, class_labels):
            return x * float("nan")

    with pytest.raises(NoImage, match="weights are damaged"):
        sample(Broken(), Diffusion(3), [0], (1, 2, 2), steps=2)


@pytest.mark.parametrize(
    ("conditions", "steps", "told"),
    [
        ([0, 4], 5, r"Conditions are 0\.\.3"),
        ([0], 1001, "from 1 to 1000"),
        ([0], 0, "from 1 to 1000"),
        ([0], "5", "from 1 to 1000"),
    ],
)
def test_sampling_refuses_what_the_model_does_not_have(conditions, steps, told):
    with pytest.raises(ExpungeError, match=told):
        sample(Exact(), Diffusion(3), torch.tensor(conditions), (1, 2, 2), steps=steps)


# -- what fits and what does not -----------------------------------------------------------------------------------


def rows(channels: int = 1, size: int = 8, classes: int = 3) -> Rows:
    random = np.random.default_rng(0)
    x = random.integers(0, 256, (12, channels, size, size), dtype=np.uint8)
    return Rows(x, np.arange(12) % classes, name="squares")


def unet(**fields) -> nn.Module:
    settings = {"sample_size": 8, "in_channels": 1, "out_channels": 1, "layers_per_block": 1, "norm_num_groups": 2}
    blocks = {"block_out_channels": (8,), "down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",)}
    return diffusers.UNet2DModel(**{**settings, **blocks, "num_class_embeds": 4, **fields})


def test_a_denoiser_of_diffusers_is_known_without_being_told():
    net, data = unet(), rows()
    assert is_denoiser(net)
    task = task_of(net, data, (2,), {"guidance": 1.0})
    assert (task.family, task.classes, task.without, task.scale, task.guidance) == ("diffusion", 3, (2,), data.scale, 1)
    assert task.problems(net, data) == []
    assert task_of(nn.Linear(2, 2), data).family == "classifier"


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"num_class_embeds": None}, "no class conditions; 3 classes need 4"),
        ({"num_class_embeds": 3}, "3 class conditions; 3 classes need 4, the last for no condition"),
        ({"in_channels": 3, "out_channels": 3}, "does not accept inputs of shape"),
        ({"out_channels": 2}, "predicts a variance as well is not supported"),
    ],
)
def test_a_denoiser_that_does_not_fit_is_told(fields, told):
    (problem,) = Diffusion(3, scale=rows().scale).problems(unet(**fields), rows())
    assert told in problem


def test_a_damaged_denoiser_and_rows_that_are_no_images_are_told():
    net = unet()
    with torch.no_grad():
        net.conv_in.weight.fill_(float("nan"))
    (problem,) = Diffusion(3, scale=rows().scale).problems(net, rows())
    assert "NaN" in problem
    flat = Rows(np.zeros((6, 5), dtype=np.float32), np.arange(6) % 3)
    assert "takes images" in Diffusion(3).problems(unet(), flat)[0]


def test_a_denoiser_that_cannot_tell_conditions_apart_is_told():
    blind = unet(norm_num_groups=8, block_out_channels=(8,))  # as many groups as channels
    task = Diffusion(3, scale=rows().scale)
    (problem,) = task.problems(blind, rows())
    assert "the same under every condition" in problem
    assert task.problems(unet(norm_num_groups=2), rows()) == []


def test_looking_at_a_denoiser_changes_nothing():
    net, state = unet(dropout=0.5).train(), torch.get_rng_state()
    assert Diffusion(3, scale=rows().scale).problems(net, rows()) == []
    assert net.training
    assert torch.get_rng_state().equal(state)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"classes": 1}, "at least 2 classes"),
        ({"condition_dropout": 1.0}, "condition_dropout must be from 0 to below 1"),
        ({"guidance": -1}, "guidance must be 0 or more"),
        ({"stand_in": "last"}, "stand_in must be any or next"),
        ({"scheduler": {"prediction_type": "flow"}}, "predicts 'flow'; what can be trained on is epsilon"),
        ({"scheduler": diffusers.FlowMatchEulerDiscreteScheduler()}, "flow matching does not"),
        ({"scheduler": "ddpm"}, "str does not say how noise is added"),
        ({"scheduler": {"num_train_timestep": 50}}, "Did you mean 'num_train_timesteps'"),
        ({"scheduler": {"num_train_timesteps": "50"}}, "No DDPMScheduler can be made with the settings"),
        ({"scheduler": {"num_train_timesteps": 0}}, "0 noise levels; there must be one at least"),
        ({"scheduler": {"beta_end": 2.0}}, "every β from 0 to 1"),
        ({"scheduler": {"beta_schedule": "steep"}}, "steep is not implemented"),
        ({"scheduler": {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}}, "flow matching does not"),
        ({"classes": "4"}, "classes must be a whole number; got '4'"),
        ({"guidance": "2"}, "guidance must be a number; got '2'"),
        ({"condition_dropout": None}, "condition_dropout must be a number; got None"),
        ({"without": 2}, "without must be a list"),
        ({"without": (0, 3)}, r"there are 3, from 0 to 2, and got \[3\]"),
    ],
)
def test_settings_out_of_range_are_refused(fields, told):
    with pytest.raises(ExpungeError, match=told):
        Diffusion(**{"classes": 3, **fields})


def test_all_that_is_wrong_with_settings_is_told_at_once():
    with pytest.raises(ExpungeError) as e:
        Diffusion(1, guidance=-1, scheduler={"beta_strat": 0.1, "beta_edn": 0.2})
    assert all(word in str(e.value) for word in ("2 classes", "guidance", "'beta_strat'", "'beta_edn'"))


def test_settings_as_diffusers_writes_them_may_be_of_another_scheduler(tmp_path):
    written = diffusers.PNDMScheduler(num_train_timesteps=70, beta_schedule="scaled_linear", skip_prk_steps=True)
    written.save_config(tmp_path)
    read = json.loads((tmp_path / "scheduler_config.json").read_text())
    assert "skip_prk_steps" in read
    for settings in (read, dict(written.config)):
        task = Diffusion(3, scheduler=settings)
        assert task.steps == 70
        torch.testing.assert_close(task.scheduler.alphas_cumprod, written.alphas_cumprod)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"guidnce": 1.0}, "Did you mean 'guidance'"),
        ({"guidance": -2}, "guidance must be 0 or more"),
        ({"guidance": "2"}, "guidance must be a number"),
        ({"scheduler": {"num_train_timestep": 50}}, "Did you mean 'num_train_timesteps'"),
        (3, "diffusion must be settings such as"),
    ],
)
def test_a_recipe_refuses_settings_of_diffusion_before_there_are_data(fields, told):
    with pytest.raises(ExpungeError, match=told):
        ex.Recipe(model="unet", diffusion=fields)
    assert ex.Recipe(model="unet", diffusion={"guidance": 1.0, "scheduler": {"num_train_timesteps": 50}})


def test_without_diffusers_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "diffusers", None)
    with pytest.raises(MissingExtra, match=r"pip install 'expunge\[diffusion\]'"):
        Diffusion(3)
    with pytest.raises(MissingExtra, match=r"The model unet needs diffusers"):
        ex.models.build("unet", channels=1, size=8, classes=3)
