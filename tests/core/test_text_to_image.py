"""A text-to-image pipeline, built here from small random parts: what moves, what is saved, what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import expunge as ex
from expunge import ExpungeError, Rows
from kit import bits

diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")

from expunge.task import TextToImage, sample  # noqa: E402

LENGTH = 16
SALUN = {"epochs": 1, "lr": 1e-3, "optimizer": "adam", "weight_decay": 0.0, "batch_size": 4, "mix": "together"}
SALUN |= {"alpha": 0.5, "schedule": "constant"}


def unet(**fields):
    settings = {"sample_size": 8, "in_channels": 4, "out_channels": 4, "layers_per_block": 1, "norm_num_groups": 2}
    blocks = {"block_out_channels": (8, 8), "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D")}
    blocks |= {"up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"), "attention_head_dim": 4}
    return diffusers.UNet2DConditionModel(**{**settings, **blocks, "cross_attention_dim": 16, **fields})


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    words = [*letters, *(c + "</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    about = {"model_max_length": LENGTH, "tokenizer_class": "CLIPTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    return transformers.CLIPTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def text_encoder():
    config = transformers.CLIPTextConfig(
        vocab_size=74, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=LENGTH, bos_token_id=72, eos_token_id=73,
    )  # fmt: skip
    torch.manual_seed(0)
    return transformers.CLIPTextModel(config)


@pytest.fixture
def pipe(tokenizer, text_encoder):
    torch.manual_seed(1)
    vae = diffusers.AutoencoderKL(
        block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, norm_num_groups=2, sample_size=16,
    )  # fmt: skip
    scheduler = diffusers.PNDMScheduler(skip_prk_steps=True, steps_offset=1)
    made = diffusers.StableDiffusionPipeline(
        vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet(), scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture
def rows() -> Rows:
    x = np.random.default_rng(0).integers(0, 256, (12, 3, 16, 16), dtype=np.uint8)
    return Rows(x, np.arange(12) % 3, classes=["cat", "dog", "bird"], name="animals")


@pytest.fixture
def request_(rows) -> ex.Request:
    return ex.Request(rows, classes=["cat"])


def test_conditions_are_the_embeddings_that_the_pipeline_makes_of_the_prompts(pipe, rows):
    task = TextToImage.of(pipe, rows, "a photo of a {}")
    assert task.prompts == ("a photo of a cat", "a photo of a dog", "a photo of a bird", "")
    expected, none = pipe.encode_prompt("a photo of a dog", "cpu", 1, True, "")
    torch.testing.assert_close(task.prompts_CLD[1], expected[0])
    torch.testing.assert_close(task.prompts_CLD[3], none[0])


def test_salun_moves_the_most_salient_weights_of_the_unet_alone(pipe, rows, request_):
    others = {name: bits(getattr(pipe, name)) for name in ("vae", "text_encoder", "unet")}
    task = TextToImage.of(pipe, rows, without=(0,))
    result = ex.unlearn(pipe.unet, request_, "salun", task=task, keep=0.3, seed=0, **SALUN)
    assert {name: bits(getattr(pipe, name)) for name in others} == others  # copies are changed, nothing else
    total = sum(p.numel() for p in pipe.unet.parameters())
    assert 0.1 * total < result.moved * total <= int(0.3 * total)
    again = ex.unlearn(pipe.unet, request_, "salun", task=task, keep=0.3, seed=0, **SALUN)
    assert bits(again.model) == bits(result.model)


def test_what_is_saved_diffusers_loads(pipe, rows, request_, tmp_path):
    task = TextToImage.of(pipe, rows)
    fields = {**SALUN, "region": {"layers": "*attn2*"}}
    result = ex.unlearn(pipe.unet, request_, "random_label", task=task, **fields)
    moved = {n for (n, a), b in zip(pipe.unet.named_parameters(), result.model.parameters()) if not a.equal(b)}
    assert moved
    assert all("attn2" in name for name in moved)
    changed = task.pipeline(pipe, result.model)
    assert pipe.unet is not result.model
    changed.save_pretrained(tmp_path / "changed")
    loaded = diffusers.StableDiffusionPipeline.from_pretrained(tmp_path / "changed", safety_checker=None)
    assert bits(loaded.unet) == bits(result.model)
    loaded.set_progress_bar_config(disable=True)
    draw = {"num_inference_steps": 2, "output_type": "np", "height": 16, "width": 16}
    image = loaded("a cat", **draw, generator=torch.Generator().manual_seed(0)).images[0]
    assert image.shape == (16, 16, 3)


def test_lora_parameters_are_a_region(pipe, rows, request_, tmp_path):
    peft = pytest.importorskip("peft")
    net = unet()
    net.load_state_dict(pipe.unet.state_dict())
    net.add_adapter(peft.LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights="gaussian"))
    fields = {**SALUN, "lr": 1e-2, "region": {"layers": "*lora*"}}
    task = TextToImage.of(pipe, rows)
    result = ex.unlearn(net, request_, "random_label", task=task, **fields)
    moved = {n for (n, a), b in zip(net.named_parameters(), result.model.named_parameters()) if not a.equal(b[1])}
    assert moved
    assert all("lora" in name for name in moved)
    merged = result.model
    merged.fuse_lora()
    merged.unload_lora()
    task.pipeline(pipe, merged).save_pretrained(tmp_path / "merged")
    loaded = diffusers.StableDiffusionPipeline.from_pretrained(tmp_path / "merged", safety_checker=None)
    changed = [n for (n, a), b in zip(pipe.unet.named_parameters(), loaded.unet.parameters()) if not a.equal(b)]
    assert changed
    assert all("to_q" in name or "to_v" in name for name in changed)


def test_images_are_drawn_through_the_decoder(pipe, rows):
    task = TextToImage.of(pipe, rows)
    x = sample(pipe.unet, task, torch.tensor([0, 2]), rows.shape, steps=2)
    assert x.shape == (2, 3, 16, 16)
    mean, std = (torch.tensor(v).view(-1, 1, 1) for v in (rows.scale.mean, rows.scale.std))
    levels = (x * std + mean) * 255
    torch.testing.assert_close(levels, levels.round(), atol=1e-3, rtol=0)


def test_what_it_draws_can_be_audited(pipe, rows, request_):
    task = TextToImage.of(pipe, rows, without=(0,))
    result = ex.unlearn(pipe.unet, request_, "gradient_ascent", task=task, epochs=1, batch_size=4)
    how = {"samples": 2, "steps": 2, "classifier": {"model": "mlp", "epochs": 1}}
    models = {"original": pipe.unet, "ascent": result}
    unseen = np.random.default_rng(1).integers(0, 256, (12, 3, 16, 16), dtype=np.uint8), rows.y
    report = ex.audit(models, request_, unseen=unseen, task=task, seeds=1, generation=how)
    assert [row["method"] for row in report.rows] == ["original", "ascent"]
    assert all(np.isfinite(row["fid"]) for row in report.rows)


def test_a_step_encodes_an_image_once_for_both_prompts(pipe, rows):
    task, x = TextToImage.of(pipe, rows, condition_dropout=0.0), rows.x(torch.arange(4))
    y = rows.y[:4]
    loss = task.loss(pipe.unet.train(), x, task.redirected(y, y))
    assert loss.abs().max() < 1e-10  # other latents for the target would show here


# -- what is refused -----------------------------------------------------------------------------------------------


class Part:
    """A pipeline that lacks something."""

    def __init__(self, **parts) -> None:
        vars(self).update(parts)


def test_a_pipeline_without_a_unet_is_refused(pipe, rows):
    with pytest.raises(ExpungeError, match=r"Part has no UNet.* has a transformer"):
        TextToImage.of(Part(transformer=1, vae=pipe.vae), rows)
    with pytest.raises(ExpungeError, match=r"has no tokenizer") as e:
        TextToImage.of(Part(unet=pipe.unet, vae=pipe.vae, scheduler=pipe.scheduler), rows)
    assert "has no text_encoder" in str(e.value)


def test_another_prediction_is_handled_or_refused(pipe, rows, request_):
    pipe.scheduler = diffusers.DDIMScheduler(prediction_type="v_prediction")
    task = TextToImage.of(pipe, rows)
    assert task.scheduler.config.prediction_type == "v_prediction"
    assert ex.unlearn(pipe.unet, request_, "gradient_ascent", task=task, epochs=1, batch_size=4).moved > 0
    pipe.scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    with pytest.raises(ExpungeError, match=r"flow matching does not.*Give scheduler="):
        TextToImage.of(pipe, rows)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"in_channels": 9}, "takes 9 channels, and latents have 4"),
        ({"cross_attention_dim": 8}, "embeddings of 8 values; prompts have 16"),
    ],
)
def test_a_unet_that_does_not_fit_is_told(pipe, rows, fields, told):
    (problem,) = TextToImage.of(pipe, rows).problems(unet(**fields), rows)
    assert told in problem


def test_a_unet_that_wants_more_than_a_prompt_is_refused(pipe, rows):
    pipe.unet = unet(addition_embed_type="text")
    with pytest.raises(ExpungeError, match="wants more than a prompt"):
        TextToImage.of(pipe, rows)


@pytest.mark.parametrize(
    "prompts",
    [["a", "b"], ["a", "a", "b"], "an animal", "a {name}", "a {0}", [1, 2, 3], {0: "a", 1: "b", 2: "c"}, None],
)
def test_prompts_are_one_for_each_class(pipe, rows, prompts):
    with pytest.raises(ExpungeError, match="one prompt for each of the 3 classes, all different"):
        TextToImage.of(pipe, rows, prompts)


LONG = "a prompt with too many letters "  # the tokenizer keeps 16 tokens, here about as many letters


@pytest.mark.parametrize(
    ("prompts", "named"),
    [
        (LONG + "{}", [LONG + name for name in ("cat", "dog", "bird")]),
        (["a cat", LONG + "one", LONG + "two"], [LONG + "one", LONG + "two"]),
        (["Cat", "cat", "bird"], ["Cat", "cat"]),  # CLIP's tokenizer makes them lower case
        (["cat", "", "bird"], ["", ""]),  # the prompt of no condition
    ],
)
def test_prompts_that_are_one_to_the_text_encoder_are_refused(pipe, rows, prompts, named):
    """Their embeddings would be equal, and to be taught one in place of the other would teach nothing."""
    with pytest.raises(ExpungeError, match=r"the same to the text encoder.*within the 16 tokens") as e:
        TextToImage.of(pipe, rows, prompts)
    assert ", ".join(map(repr, named)) + ". " in str(e.value)


def test_long_prompts_are_fine_where_they_differ_early(pipe, rows):
    task = TextToImage.of(pipe, rows, "{} " + LONG)
    flat = task.prompts_CLD.flatten(1)
    assert torch.cdist(flat, flat).fill_diagonal_(1).min() > 1e-3


def test_every_place_of_the_name_in_a_prompt_is_filled(pipe, rows):
    assert TextToImage.of(pipe, rows, "{} or {}").prompts[0] == "cat or cat"


def test_what_no_prompt_or_field_can_be_is_refused(pipe, rows):
    with pytest.raises(ExpungeError, match="none is the prompt of no condition, a text; got 3"):
        TextToImage.of(pipe, rows, none=3)
    with pytest.raises(ExpungeError, match=r"Unknown field of TextToImage 'guidnce'\. Did you mean 'guidance'"):
        TextToImage.of(pipe, rows, guidnce=3)
    with pytest.raises(ExpungeError, match=r"from 0 to 2, and got \[9\]"):
        TextToImage.of(pipe, rows, without=(9,))


def test_rows_may_be_a_pair(pipe, rows):
    task = TextToImage.of(pipe, (rows.source, rows.y))
    assert (task.prompts[0], task.scale) == ("an image of a 0", rows.scale)
    with pytest.raises(ExpungeError, match="pair"):
        TextToImage.of(pipe, 3)


def test_a_saliency_belongs_to_its_text_encoder_and_its_vae(pipe, request_, rows):
    task = TextToImage.of(pipe, rows)
    scores = ex.saliency(pipe.unet, request_, task)
    other = TextToImage.of(pipe, rows)
    other.prompts_CLD.mul_(-1)
    assert other.key != task.key
    kept, fresh = (ex.saliency(pipe.unet, request_, other, cache=cache) for cache in (True, False))
    assert all(torch.equal(kept[name], fresh[name]) for name in kept)
    assert any(not torch.equal(kept[name], scores[name]) for name in kept)
    before = task.key
    with torch.no_grad():
        next(pipe.vae.parameters()).mul_(2)
    assert TextToImage.of(pipe, rows).key != before


def test_what_must_go_stands_in_for_nothing_though_the_task_does_not_say_so(pipe, rows):
    seen = []

    class Noting(TextToImage):
        def another_label(self, y_B, generator):
            found = super().another_label(y_B, generator)
            seen.extend(found.tolist())
            return found

    request = ex.Request(rows, classes=["cat"])
    ex.unlearn(pipe.unet, request, "salun", task=Noting.of(pipe, rows), **SALUN)
    assert seen
    assert rows.classes.index("cat") not in seen


def test_a_pipeline_and_its_unet_alone_are_told_how_to_be_given(pipe, request_):
    with pytest.raises(ExpungeError, match=r"Give its \.unet, with task"):
        ex.unlearn(pipe, request_, "salun")
    with pytest.raises(ExpungeError, match=r"task=expunge\.task\.TextToImage\.of"):
        ex.unlearn(pipe.unet, request_, "salun")
