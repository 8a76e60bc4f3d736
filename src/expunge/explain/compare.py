"""Several explainers side by side, by insertion and deletion.

Shapes: B batch, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from expunge.errors import ExpungeError
from expunge.explain.insertion_deletion import deletion, insertion
from expunge.explain.look import Explainer


def compare(
    model: nn.Module, x_BCHW: Tensor, classes_B: Tensor, explainers: Mapping[str, Explainer], *, steps: int = 32
) -> list[dict[str, Any]]:
    """A row of plain data for each explainer: ``explainer, images, insertion, deletion``, and the two standard errors.

    Areas are means over the images, 0 to 1: insertion should be high, deletion low. An explainer that this model does
    not admit (CAM without an average, say), or that raises any error, gets a row with ``failed``, the reason, in place
    of the numbers.

    Args:
        model: returns logits; it is not changed.
        x_BCHW: images as the model takes them.
        classes_B: the class to explain for each image.
        explainers: by name, e.g. `EXPLAINERS`.
        steps: points of each curve besides the first; default 32.

    Cost: the explainers', and 2 * (`steps` + 1) forward passes for each.
    """
    rows = []
    for name, explainer in explainers.items():
        row: dict[str, Any] = {"explainer": name, "images": len(x_BCHW)}
        try:
            maps_BHW = explainer(model, x_BCHW, classes_B)
            for measure in (insertion, deletion):
                auc_B = measure(model, x_BCHW, classes_B, maps_BHW, steps=steps).auc.double()
                row[measure.__name__] = round(float(auc_B.mean()), 5)
                spread = float(auc_B.std() / len(auc_B) ** 0.5) if len(auc_B) > 1 else None
                row[f"{measure.__name__}_se"] = None if spread is None else round(spread, 5)
        except ExpungeError as error:
            row["failed"] = str(error)
        except Exception as error:  # an explainer of one's own may raise anything; the others still count
            row["failed"] = f"{type(error).__name__}: {error}"
        rows.append(row)
    return rows
