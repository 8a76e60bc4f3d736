"""Region: which weights may move.

Enforced on the weights after every optimiser step, and on the optimiser's own state. Masking gradients alone is not
enough: weight decay and momentum go on moving weights whose gradient is zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from expunge.errors import ExpungeError, UnknownName
from expunge.hold import held_buffers, held_weights
from expunge.largest import top
from expunge.layer_choice import matches, names_in_last
from expunge.norms import frozen_statistics
from expunge.partial import PartialUpdate, Rule
from expunge.proximal import Proximal
from expunge.salient import SHARE, Aggregation, Salient, Scope

BatchNormPolicy = Literal["update", "freeze"]


@dataclass(frozen=True)
class Region:
    """The coordinates of a model that may move; everything else stays bit-identical.

    Build one with `Region.all()`, `.layers(...)`, `.last(k)`, `.top(scores, share)`, `.salient(share)` or
    `.partial(keep, rule)`.

    Args:
        patterns: parameters whose name matches one of these globs move. Default: none given, so all do.
        last_k: instead, the parameters of the last k layers move.
        masks: instead, a boolean tensor for each parameter name, True where it moves; parameters that are not
            named stay.
        batchnorm: `"update"` lets running statistics follow the data; `"freeze"` uses them as they are and leaves
            them bit-identical.
        updates: how much of a step is let through. Default: all of it.
        saliency: of what the above lets move, the share of the largest saliency; a method measures it. Default: all.
    """

    patterns: tuple[str, ...] | None = None
    last_k: int | None = None
    masks: Mapping[str, Tensor] | None = field(default=None, repr=False, compare=False)
    batchnorm: BatchNormPolicy = "update"
    updates: PartialUpdate | Proximal | None = None
    saliency: Salient | None = None

    @classmethod
    def all(cls, batchnorm: BatchNormPolicy = "update") -> Region:
        """Every parameter may move."""
        return cls(batchnorm=batchnorm)

    @classmethod
    def layers(cls, *patterns: str, batchnorm: BatchNormPolicy = "freeze") -> Region:
        """Parameters whose name, or whose module's name, matches one of the globs, e.g. `"fc*"`."""
        if not patterns:
            raise ExpungeError("Region.layers needs at least one pattern, e.g. Region.layers('fc*').")
        return cls(patterns=tuple(patterns), batchnorm=batchnorm)

    @classmethod
    def last(cls, k: int, batchnorm: BatchNormPolicy = "freeze") -> Region:
        """The last k layers: linear, convolutional or embedding modules, each with the norms that follow it."""
        if not isinstance(k, int) or k < 1:
            raise ExpungeError(f"Region.last needs k of 1 or more; got {k!r}.")
        return cls(last_k=k, batchnorm=batchnorm)

    @classmethod
    def top(
        cls, scores: Mapping[str, Tensor], share: float, batchnorm: BatchNormPolicy = "update", scope: Scope = "global"
    ) -> Region:
        """Exactly `int(n * share)` of all n scored coordinates: those of the largest scores, over all layers at once.

        Args:
            scores: a tensor of the parameter's shape for each parameter name, e.g. the saliency.
            share: the share that may move, above 0 and up to 1.
            batchnorm: see the class. Default `"update"`, as in the SalUn protocol.
            scope: `"per_layer"` takes `int(n * share)` of each tensor of n instead.

        Raises:
            ExpungeError: a share outside (0, 1], no scores, scores that are NaN, an unknown scope.

        Ties are broken by position, so that the density is exact however many scores are equal.
        """
        Salient(share, scope=scope)  # refuses what is no share or scope
        if not scores:
            raise ExpungeError("Region.top got no scores; give one tensor for each parameter name.")
        if scope == "per_layer":
            parts = [cls.top({name: score}, share).masks or {} for name, score in scores.items()]
            return cls(masks={name: mask for part in parts for name, mask in part.items()}, batchnorm=batchnorm)
        if any(s.is_complex() for s in scores.values()):
            raise ExpungeError("Region.top got complex scores, which have no order; give their magnitude.")
        wide = torch.float64 if any(s.dtype in (torch.float64, torch.int64) for s in scores.values()) else torch.float32
        flat = torch.cat([s.detach().flatten().to(wide) for s in scores.values()])
        if torch.isnan(flat).any():
            raise ExpungeError("Region.top got NaN scores; the gradients they come from are damaged.")
        chosen = top(flat, int(len(flat) * share)).split([s.numel() for s in scores.values()])
        masks = {name: part.view(s.shape) for (name, s), part in zip(scores.items(), chosen)}
        return cls(masks=masks, batchnorm=batchnorm)

    @classmethod
    def salient(
        cls,
        share: float = SHARE,
        aggregation: Aggregation = "abs_of_sum",
        scope: Scope = "global",
        within: Region | None = None,
    ) -> Region:
        """The share of the largest saliency for the forget rows, see `Salient`; measured when a method is applied.

        `within` another region the share counts what that one lets move. Default: everywhere.
        """
        inside = within or cls.all()
        if inside.saliency is not None:
            raise ExpungeError("The region within has a share by saliency already; give one without.")
        return replace(inside, saliency=Salient(share, aggregation, scope))

    @classmethod
    def partial(cls, keep: float, rule: Rule = "topk_step", within: Region | None = None) -> Region:
        """A share `keep` of each tensor's entries in each step, chosen by a rule, see `PartialUpdate`.

        `within` another region the share counts what that one lets move. Default: everywhere.
        """
        inside = within or cls.all()
        if inside.updates is not None:
            raise ExpungeError("The region within has partial updates already; give one without.")
        return replace(inside, updates=PartialUpdate(keep, rule))

    @property
    def whole(self) -> bool:
        """Whether every parameter may move."""
        return self.patterns is None and self.last_k is None and self.masks is None and self.saliency is None

    def resolve(self, model: nn.Module) -> dict[str, Tensor | bool]:
        """For each parameter name of the model: True (moves), False (stays), or a boolean mask of its shape.

        Where a share by saliency is asked for and not measured yet, that is what it will be a share of.

        Raises:
            ExpungeError: a pattern that matches nothing, a mask of the wrong shape or for an unknown parameter, or
                a region in which nothing moves.
        """
        names = [name for name, _ in model.named_parameters()]
        moves: dict[str, Tensor | bool]
        if self.masks is not None:
            moves = self._by_masks(dict(model.named_parameters()))
        elif self.patterns is not None:
            for pattern in self.patterns:
                if not any(matches(name, pattern) for name in names):
                    raise UnknownName("layer pattern", pattern, names)
            moves = {name: any(matches(name, p) for p in self.patterns) for name in names}
        elif self.last_k is not None:
            inside = names_in_last(model, self.last_k)
            moves = {name: name in inside for name in names}
        else:
            moves = {name: True for name in names}
        moving = [name for name, m in moves.items() if (m.any() if isinstance(m, Tensor) else m)]
        if not moving:
            raise ExpungeError("No weight lies in this region, so nothing could be unlearned; widen it.")
        if not any(p.requires_grad for name, p in model.named_parameters() if name in moving):
            raise ExpungeError(
                f"Every weight in this region is frozen (requires_grad is False, e.g. {moving[0]}); "
                "call model.requires_grad_(True) first, or choose another region."
            )
        return moves

    def _by_masks(self, parameters: dict[str, nn.Parameter]) -> dict[str, Tensor | bool]:
        masks = self.masks or {}
        for name, mask in masks.items():
            if name not in parameters:
                raise UnknownName("parameter in the region", name, parameters)
            if mask.shape != parameters[name].shape:
                raise ExpungeError(
                    f"The region's mask for {name} has shape {tuple(mask.shape)}, "
                    f"the parameter {tuple(parameters[name].shape)}."
                )
        moves: dict[str, Tensor | bool] = {}
        for name in parameters:
            mask = masks.get(name, torch.zeros(()))
            moves[name] = bool(mask.any()) if mask.bool().all() or not mask.any() else mask.bool()
        return moves

    @contextmanager
    def enforce(
        self, model: nn.Module, optimizer: Optimizer, generator: torch.Generator | None = None
    ) -> Iterator[None]:
        """Hold everything outside the region bit-identical while `optimizer` steps, inside a `with` block.

        Works with any optimiser, see `held_weights`. With `batchnorm` "freeze" the buffers of modules outside are
        afterwards as they were. Partial updates draw from `generator`.
        """
        if self.saliency is not None:
            raise ExpungeError(
                "This region is a share by saliency, which has to be measured on data first: "
                "Region.top(expunge.saliency(model, request), share). Methods do so by themselves."
            )
        moves = self.resolve(model)
        with ExitStack() as held:
            if self.batchnorm == "freeze":
                held.enter_context(held_buffers(model, moves))
                held.enter_context(frozen_statistics(model))
            held.enter_context(held_weights(model, optimizer, moves))
            if self.updates is not None:
                held.enter_context(self.updates.enforce(model, optimizer, moves, generator))
            yield

    # -- as YAML -----------------------------------------------------------------------------------------------

    def to_config(self) -> dict[str, Any]:
        """The region as plain data, e.g. `{"layers": ["fc*"]}`.

        Raises:
            ExpungeError: element masks, which are data and no setting.
        """
        if self.masks is not None or isinstance(self.updates, Proximal):
            raise ExpungeError("A region of element masks, or one that is bound to a run, is data and no setting.")
        chosen: dict[str, Any] = {}
        if self.patterns is not None:
            chosen["layers"] = list(self.patterns)
        if self.last_k is not None:
            chosen["last"] = self.last_k
        if self.updates is not None:
            chosen |= {"partial": self.updates.keep, "rule": self.updates.rule}
        if (asked := self.saliency) is not None:
            chosen |= {"saliency": asked.share, "aggregation": asked.aggregation, "scope": asked.scope}
        return {**chosen, "batchnorm": self.batchnorm}

    @classmethod
    def from_config(cls, config: Any, share: float | None = None) -> Region | None:
        """A region from plain data: `"all"`, `"saliency"`, `{"layers": "fc*"}` or `{"last": 2}`.

        Each mapping may have `batchnorm`, `partial` with `rule`, and `saliency` with `aggregation` and `scope`; `share`
        may go with `"saliency"`.
        """
        if share is not None and config != "saliency":
            raise ExpungeError("share goes with region='saliency'; the share of salun is its keep.")
        config = config if share is None else {"saliency": share}
        if config is None or isinstance(config, Region):
            return config
        if isinstance(config, str):
            config = {"all": {}, "saliency": {"saliency": SHARE}}.get(config, {"layers": config})
        if not isinstance(config, Mapping):
            raise ExpungeError(f"A region is 'all', {{layers: 'fc*'}}, {{last: 2}}, {{saliency: 0.5}}; got {config!r}.")
        known = {"layers", "last", "batchnorm", "partial", "rule", "saliency", "aggregation", "scope"}
        for key in config:
            if key not in known:
                raise UnknownName("field of region", key, known)
        for key, settings in (("partial", {"rule"}), ("saliency", {"aggregation", "scope"})):
            if key in config:
                own = {k: v for k, v in config.items() if k in settings}
                within = cls.from_config({k: v for k, v in config.items() if k != key and k not in settings})
                made = cls.partial if key == "partial" else cls.salient
                return made(config[key], within=within, **own)
            if given := sorted(settings & set(config)):
                raise ExpungeError(f"{given[0]} of a region says which share moves; give it too: {{{key}: 0.1, ...}}.")
        if "layers" in config and "last" in config:
            raise ExpungeError("A region is given by layers or by last, not by both.")
        batchnorm = config.get("batchnorm", "update" if not {"layers", "last"} & set(config) else "freeze")
        if batchnorm not in ("update", "freeze"):
            raise UnknownName("batchnorm policy", batchnorm, ("update", "freeze"))
        if "layers" in config:
            patterns = [config["layers"]] if isinstance(config["layers"], str) else config["layers"]
            if not isinstance(patterns, (list, tuple)) or not all(isinstance(p, str) for p in patterns):
                raise ExpungeError(f"layers of a region are names such as 'fc*', one or a list; got {patterns!r}.")
            return cls.layers(*patterns, batchnorm=batchnorm)
        if "last" in config:
            return cls.last(config["last"], batchnorm=batchnorm)
        return cls.all(batchnorm=batchnorm)
