"""Salient: a share of a model's coordinates, those of the largest saliency.

The scores come from data and from the model as it is before it moves, so a setting like this becomes coordinates only
where a method is applied (`expunge.artifact.saliency`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from expunge.errors import UnknownName, raise_if

Aggregation = Literal["abs_of_sum", "sum_of_abs", "sum_of_squares"]
Scope = Literal["global", "per_layer"]
AGGREGATIONS: tuple[str, ...] = get_args(Aggregation)
SCOPES: tuple[str, ...] = get_args(Scope)
SHARE = 0.5  # the paper's: the threshold is the median


@dataclass(frozen=True)
class Salient:
    """Exactly `int(n * share)` of n coordinates, by the gradient of the loss on the forget rows under true labels.

    Args:
        share: the share that may move, above 0 and up to 1; 1 is all of them, and nothing is measured. Default 0.5,
            as in the SalUn paper (Fan et al. 2024).
        aggregation: what is made of the rows' gradients g_i.
            `"abs_of_sum"` (default): |Σ g_i|, as in the paper's code.
            `"sum_of_abs"`: Σ |g_i|, in which rows that pull apart do not cancel; `"sum_of_squares"`: Σ g_i², the
            diagonal of the empirical Fisher matrix. Both take one row at a time.
        scope: one ranking of all weights, `"global"` (default, as in the paper), or the share of each tensor,
            `"per_layer"`.

    Raises:
        ExpungeError: a share outside (0, 1], an unknown aggregation or scope.
    """

    share: float = SHARE
    aggregation: Aggregation = "abs_of_sum"
    scope: Scope = "global"

    def __post_init__(self) -> None:
        raise_if(salient_problems("share", self.share, self.aggregation, self.scope))


def salient_problems(name: str, share: Any, aggregation: Any, scope: Any) -> list[str]:
    """What is wrong with these settings, a sentence each; `name` is what the share is called."""
    found = []
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share <= 1:
        hint = " With 0 no weight could move: nothing would be unlearned." if share == 0 else ""
        found.append(f"{name} must be above 0 and at most 1, the share of weights that may move; got {share!r}.{hint}")
    for kind, value, known in (("aggregation", aggregation, AGGREGATIONS), ("scope", scope, SCOPES)):
        if value not in known:
            found.append(str(UnknownName(kind, value, known)))
    return found
