"""Images and maps as plain data that JSON can hold: small PNGs in data URIs.

Shapes: B batch, C channels, H height, W width.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from expunge.errors import ExpungeError, raise_if
from expunge.explain.layers import normalise


def pictures(
    x_BCHW: Tensor, maps: Mapping[str, Tensor], *, together: bool = False, longest: int = 96
) -> list[dict[str, Any]]:
    """For each image ``{"image": URI, "maps": {name: URI}}``, what the report's figure of maps takes.

    An image is stretched over all grey values (or colours) from its own smallest to its largest number. A map is
    grey: black where nothing speaks for the class, white at its largest number.

    Args:
        x_BCHW: images of 1 or 3 channels; of others the mean over channels is shown.
        maps: (B, H, W) for each model or explainer, by name.
        together: white is the largest number in all maps of an image, so that a map that faded looks faded; only for
            maps of one explainer. Default: each map by itself, so that places can be compared but sizes cannot.
        longest: larger pictures are reduced to this many pixels on the longer side; default 96.

    Raises:
        Problems: maps of another shape than the images, numbers that are not finite.
    """
    _check(x_BCHW, maps)
    shown = x_BCHW.detach().float().cpu()
    if shown.shape[1] not in (1, 3):
        shown = shown.mean(1, keepdim=True)
    low, high = shown.amin((1, 2, 3), keepdim=True), shown.amax((1, 2, 3), keepdim=True)
    shown = (shown - low) / (high - low).clamp_min(1e-12)
    heats = {name: maps_BHW.detach().float().cpu() for name, maps_BHW in maps.items()}
    most_B = torch.stack([heat.amax((1, 2)) for heat in heats.values()]).amax(0) if together and heats else None
    heats = {name: normalise(heat, most_B) for name, heat in heats.items()}
    return [
        {
            "image": png(_reduced(shown[i], longest)),
            "maps": {name: png(_reduced(heat[i][None], longest)) for name, heat in heats.items()},
        }
        for i in range(len(shown))
    ]


def _check(x_BCHW: Tensor, maps: Mapping[str, Tensor]) -> None:
    if x_BCHW.ndim != 4 or not x_BCHW.numel():
        raise ExpungeError(f"Pictures need images of shape (B, C, H, W), at least one; got {tuple(x_BCHW.shape)}.")
    shape = (len(x_BCHW), *x_BCHW.shape[2:])
    given = {"The images": x_BCHW, **{f"Maps {name!r}": m for name, m in maps.items()}}
    wrong = [f"Maps {n!r} must have shape {shape}; got {tuple(m.shape)}." for n, m in maps.items() if m.shape != shape]
    lost = [what for what, numbers in given.items() if not torch.isfinite(numbers).all()]
    raise_if(wrong + [f"{what} hold NaN or infinity, which no picture can show." for what in lost])


def _reduced(x_CHW: Tensor, longest: int) -> Tensor:
    H, W = x_CHW.shape[1:]
    if max(H, W) <= longest:
        return x_CHW
    size = [max(1, round(side * longest / max(H, W))) for side in (H, W)]
    return F.interpolate(x_CHW[None], size=size, mode="area")[0]


def png(x_CHW: Tensor) -> str:
    """A data URI of an image of 1 or 3 channels.

    Args:
        x_CHW: numbers from 0 to 1; what lies outside is clipped.
    """
    from PIL import Image  # comes with matplotlib

    x_HWC = (x_CHW.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    image = Image.fromarray(x_HWC[:, :, 0] if x_HWC.shape[2] == 1 else x_HWC)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
