"""TextToImage: the task of a pipeline of diffusers whose UNet predicts noise in latents, with prompts as conditions.

Shapes: B batch, C classes, L tokens, D values of a token's embedding.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from dataclasses import fields as dataclass_fields
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from expunge.data.adapt import as_rows
from expunge.data.rows import Rows
from expunge.errors import ExpungeError, MissingExtra, UnknownName, raise_if
from expunge.io import model_digest
from expunge.task.diffusion import Diffusion
from expunge.task.noising import scheduler_problems


@dataclass(frozen=True, kw_only=True, eq=False)
class TextToImage(Diffusion):
    """A pipeline's UNet, `model(x_t, t, encoder_hidden_states=e)`, with one prompt for each class; see `of`.

    Images are encoded once for a step, so that a prediction and the one it is redirected to have the same latents.

    Args:
        prompts_CLD: the embedding of the prompt of each class and, last, of no prompt, (C + 1, L, D).
        vae: encodes images; it stands still.
        prompts: the prompts as text, the last for none.
    """

    prompts_CLD: Tensor = field(repr=False)
    vae: Any = field(repr=False)
    prompts: tuple[str, ...] = ()

    clips: ClassVar[bool] = False  # latents have no bounds

    @classmethod
    def of(
        cls, pipeline: Any, rows: Any, prompt: str | Sequence[str] = "an image of a {}", none: str = "", **fields: Any
    ) -> TextToImage:
        """The task of a `StableDiffusionPipeline` on these rows.

        Args:
            pipeline: has `unet`, `vae`, `tokenizer`, `text_encoder` and `scheduler`; it is not changed.
            rows: images as large as the pipeline is to draw, in classes: `Rows`, a dataset, or a pair (x, y).
            prompt: of each class, or one text in which `{}` is the name of the class. Default: the SalUn protocol's.
            none: the prompt of no condition. Default: empty.
            fields: of `Diffusion`, such as `without` (the classes that must go), `guidance` (7.5 in pipelines is 6.5
                here) or `stand_in`.

        Raises:
            ExpungeError: a pipeline without such parts, or one whose UNet wants more than a prompt; prompts that are
                not one for each class, or not different to the text encoder; fields that there are not.
        """
        mine = ("prompts_CLD", "vae", "prompts")
        known = [f.name for f in dataclass_fields(cls) if f.name not in mine]
        unknown = [str(UnknownName("field of TextToImage", name, known)) for name in fields if name not in known]
        raise_if(pipeline_problems(pipeline) + unknown)
        rows = as_rows(rows)
        names = _texts(prompt, none, rows)
        ids = _tokens(pipeline, [*names, none])
        return cls(
            **{
                "classes": rows.num_classes,
                "scale": rows.scale,
                "scheduler": pipeline.scheduler,
                "prompts_CLD": _embedded(pipeline, ids),
                "vae": pipeline.vae,
                "prompts": (*names, none),
                **fields,
            }
        )

    @property
    def key(self) -> str | None:
        """With digests of what its `repr` leaves out."""
        told, parts = super().key, (model_digest({"prompts": self.prompts_CLD}), model_digest(self.vae))
        return told and f"{told} {parts}"

    def predict(self, model: nn.Module, noised_B: Tensor, t_B: Tensor, condition_B: Tensor) -> Tensor:
        """What the UNet predicts of noised latents under prompts, in float32."""
        embedded_BLD = self.prompts_CLD.to(noised_B)[condition_B]
        out = model(noised_B, t_B, encoder_hidden_states=embedded_BLD)
        predicted: Tensor = out if isinstance(out, Tensor) else out.sample
        return predicted.float()

    def clean(self, model: nn.Module, x_B: Tensor) -> Tensor:
        """The latents of the rows' images, drawn from what the encoder says of them."""
        images_B = self.unscaled(x_B).to(self.vae.device, self.vae.dtype)
        with torch.no_grad():
            latents_B: Tensor = self.vae.encode(images_B).latent_dist.sample()
        return latents_B.mul(self.vae.config.scaling_factor).to(x_B.device, torch.float32)

    def inputs(self, clean_B: Tensor) -> Tensor:
        """The images of latents, as the rows have them."""
        latents_B = (clean_B / self.vae.config.scaling_factor).to(self.vae.device, self.vae.dtype)
        with torch.no_grad():
            images_B: Tensor = self.vae.decode(latents_B).sample
        return super().inputs(images_B.float().clamp(-1, 1))

    def drawn_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of the latents of one image."""
        config = self.vae.config
        smaller = 2 ** (len(config.block_out_channels) - 1)
        return (int(config.latent_channels), *(side // smaller for side in shape[1:]))

    def model_problems(self, model: nn.Module) -> list[str]:
        """What is wrong with the settings of a UNet of diffusers, a sentence each."""
        config = getattr(model, "config", None) or {}
        found = []
        if config.get("in_channels", self.vae.config.latent_channels) != self.vae.config.latent_channels:
            found.append(
                f"The UNet takes {config['in_channels']} channels, and latents have {self.vae.config.latent_channels}: "
                "UNets for inpainting or depth take more than an image and are not supported."
            )
        if isinstance(have := config.get("cross_attention_dim"), int) and have != self.prompts_CLD.shape[2]:
            found.append(f"The UNet attends to embeddings of {have} values; prompts have {self.prompts_CLD.shape[2]}.")
        return found

    def pipeline(self, pipeline: Any, model: nn.Module) -> Any:
        """A pipeline that is like this one but for its UNet; `save_pretrained` writes it, diffusers loads it.

        The weights of a UNet with LoRA adapters are saved with it once they are merged: `model.fuse_lora()`, then
        `model.unload_lora()`.
        """
        other = copy.copy(pipeline)
        other.register_modules(unet=model)
        return other


def pipeline_problems(pipeline: Any) -> list[str]:
    """Why a pipeline is none whose UNet can be trained on images and prompts, a sentence each."""
    name = type(pipeline).__name__
    try:
        import diffusers  # noqa: F401
    except ImportError:
        raise MissingExtra("diffusers", "diffusion", "A text-to-image pipeline") from None
    if getattr(pipeline, "unet", None) is None:
        other = " It has a transformer, which is trained otherwise." if getattr(pipeline, "transformer", None) else ""
        return [f"{name} has no UNet, whose weights are what is changed.{other} Give a StableDiffusionPipeline."]
    parts = ("vae", "tokenizer", "text_encoder", "scheduler")
    found = [f"{name} has no {part}." for part in parts if getattr(pipeline, part, None) is None]
    if found:
        return found
    config = pipeline.unet.config
    if config.get("addition_embed_type") is not None or getattr(pipeline, "text_encoder_2", None) is not None:
        found.append(f"The UNet of {name} wants more than a prompt (as SDXL's does); that is not supported.")
    return found + scheduler_problems(pipeline.scheduler)


def _texts(prompt: Any, none: Any, rows: Rows) -> list[str]:
    """The prompt of each class."""
    if isinstance(prompt, str):
        names = [prompt.replace("{}", name) for name in rows.classes]
    else:
        names = list(prompt) if isinstance(prompt, Sequence) else []
    texts = all(isinstance(name, str) for name in names)
    if not texts or len(names) != rows.num_classes or len(set(names)) != len(names):
        raise ExpungeError(
            f"Give one prompt for each of the {rows.num_classes} classes, all different, or one text with {{}} for the "
            f"class's name; got {names or prompt!r}."
        )
    if not isinstance(none, str):
        raise ExpungeError(f"none is the prompt of no condition, a text; got {none!r}.")
    return names


def _tokens(pipeline: Any, prompts: Sequence[str]) -> Tensor:
    """What the text encoder gets, (prompts, L); refused where two prompts are one to it."""
    most = pipeline.tokenizer.model_max_length
    given = pipeline.tokenizer(
        list(prompts), padding="max_length", max_length=most, truncation=True, return_tensors="pt"
    )
    ids: Tensor = given.input_ids
    alike: dict[tuple[int, ...], list[str]] = {}
    for prompt, row in zip(prompts, ids.tolist()):
        alike.setdefault(tuple(row), []).append(prompt)
    same = [", ".join(map(repr, some)) for some in alike.values() if len(some) > 1]
    if same:
        raise ExpungeError(
            f"Prompts that are the same to the text encoder: {'; '.join(same)}. Give prompts that differ, from each "
            f"other and from that of no condition, within the {most} tokens that its tokenizer keeps."
        )
    return ids


def _embedded(pipeline: Any, ids: Tensor) -> Tensor:
    encoder = pipeline.text_encoder
    mode = encoder.training
    encoder.eval()
    try:
        with torch.no_grad():
            embedded: Tensor = encoder(ids.to(encoder.device))[0]
    finally:
        encoder.train(mode)
    return embedded.float()
