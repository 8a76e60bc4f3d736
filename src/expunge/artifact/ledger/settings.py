"""What a ledger writes down, and how exactly."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, cast

import numpy as np

from expunge.artifact.ledger.ids import plain
from expunge.data.ids import read_ids
from expunge.errors import ExpungeError, UnknownName, collected, raise_if
from expunge.largest import check_keep

VALUES = ("float32", "float16", "bfloat16", "float64")
RECORDS = ("update", "gradient", "sample")
BUFFERS = ("recalibrate", "keep", "subtract")
ON_ERROR = ("stop", "go_on")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a ledger writes down about each step of a training; in YAML `recipe: {ledger: {keep: 0.1}}`.

    Args:
        keep: the share of each layer's entries that is kept, those of largest magnitude; above 0 and up to 1. Default
            0.1, twice what `partial_amnesiac` takes back by default, so that there is room to choose. 1 is conventional
            amnesiac, and serves every smaller share as well.
        values: how the kept values are stored: `"float32"` (default), `"float16"` or `"bfloat16"` (half the room;
            the rounding error is stated), or `"float64"` (undoing every step gives the first weights bit for bit).
        carry: add what rounding lost in a step to the next one, so that errors do not add up. Default no.
        layers: globs of the parameters that are recorded, or of their modules, e.g. `["fc*"]`. Default: all.
        record: `"update"` (default): what each step did to the weights, as published; `"gradient"`: the gradient of
            each step, undone together with its later effect through momentum; `"sample"`: each sensitive row's own
            share of the gradient, so that undoing a person does not undo the batch.
        sensitive: ids of the rows that may have to be forgotten, a list or a file; steps without them are counted and
            not stored. Default: every row.
        buffers: what forgetting does about BatchNorm's running statistics: `"recalibrate"` (default): estimated anew on
            the rows that stay; `"keep"`: left as they are, as in the reference code; `"subtract"`: their changes are
            recorded and taken back as well.
        decay: whether the pull of weight decay belongs to a recorded update. Default yes, as published; without it,
            forgetting does not inflate weights again, and undoing every step no longer gives the first weights.
        on_error: when the disk is full, `"stop"` the training (default) or `"go_on"` without the ledger, which then
            says at which step it ends.
    """

    keep: float = 0.1
    values: str = "float32"
    carry: bool = False
    layers: tuple[str, ...] = ()
    record: str = "update"
    sensitive: tuple[Hashable, ...] | None = None
    buffers: str = "recalibrate"
    decay: bool = True
    on_error: str = "stop"

    def __post_init__(self) -> None:
        layers, sensitive, keep = (cast(object, getattr(self, name)) for name in ("layers", "sensitive", "keep"))
        if isinstance(layers, (list, str)):
            object.__setattr__(self, "layers", (layers,) if isinstance(layers, str) else tuple(layers))
        if isinstance(sensitive, (str, Path)):
            object.__setattr__(self, "sensitive", tuple(read_ids(sensitive)))
        elif sensitive is not None:
            object.__setattr__(self, "sensitive", tuple(plain(cast(Any, sensitive))))
        if isinstance(keep, np.floating):
            object.__setattr__(self, "keep", float(keep))
        raise_if(self._problems())

    def _problems(self) -> list[str]:
        found: list[str] = []
        with collected(found):
            check_keep(self.keep)
        for name, known in (("values", VALUES), ("record", RECORDS), ("buffers", BUFFERS), ("on_error", ON_ERROR)):
            if getattr(self, name) not in known:
                found.append(str(UnknownName(name, getattr(self, name), known)))
        for name in ("carry", "decay"):
            if not isinstance(getattr(self, name), bool):
                found.append(f"{name} must be true or false; got {getattr(self, name)!r}.")
        if self.values == "float64" and self.keep != 1:
            found.append(f"values: float64 is for keep: 1, where it makes undoing exact; keep is {self.keep}.")
        if self.record != "update":
            if self.buffers == "subtract":
                found.append(f"buffers: subtract is for record: update; record is {self.record}.")
            if not self.decay:
                found.append(f"decay: false is for record: update; a recorded {self.record} never holds weight decay.")
        if self.carry and self.record == "sample":
            found.append("carry is for record: update or gradient; a sample's shares stand each for themselves.")
        if not isinstance(self.layers, tuple) or not all(isinstance(p, str) for p in self.layers):
            found.append(f"layers are globs of parameters or modules, such as 'fc*'; got {self.layers!r}.")
        if self.sensitive is not None and not self.sensitive:
            found.append("sensitive is a list of ids, one at least, or a file of ids; got none.")
        return found

    @classmethod
    def of(cls, config: Settings | Mapping[str, Any] | None) -> Settings | None:
        """Settings from plain data.

        Raises:
            ExpungeError: unknown or impossible settings.
        """
        if config is None or isinstance(config, Settings):
            return config
        plain: object = config
        if not isinstance(plain, Mapping):
            raise ExpungeError(f"ledger takes settings such as {{keep: 0.1}}; got {config!r}.")
        known = [f.name for f in fields(cls)]
        raise_if([str(UnknownName("setting of ledger", name, known)) for name in config if name not in known])
        return cls(**config)

    @classmethod
    def recorded(cls, config: Mapping[str, Any]) -> Settings:
        """The settings of a ledger that is there; once every sensitive row was purged, its list of them is empty.

        Raises:
            ExpungeError: unknown or impossible settings.
        """
        emptied = config.get("sensitive") == []
        made = cls.of({**config, "sensitive": None} if emptied else config) or cls()
        if emptied:
            object.__setattr__(made, "sensitive", ())
        return made

    def plain(self) -> dict[str, Any]:
        """The settings as JSON holds them."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
