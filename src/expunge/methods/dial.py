"""Dial: the number of a method, or of a step of a chain, that a search turns; and the values that it takes."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass, fields, replace
from typing import Literal

from expunge.errors import ExpungeError
from expunge.method import Method
from expunge.methods.chain import Chain

Answer = Literal["weak", "strong", "refused"]
NEAR = 1.01  # a weak and a strong value that are as near have nothing between them worth a run


@dataclass(frozen=True)
class Dial:
    """A number that makes a method forget more or less.

    Args:
        method: whose number it is.
        name: the field; for a step of a chain its number from 0, a dot and the field: `"0.lr"`. Default: the one on the
            method's card.

    Raises:
        ExpungeError: no such field, or one that is no number above 0.
    """

    method: Method
    name: str = ""

    def __post_init__(self) -> None:
        method, name = self.method, self.name or self.method.card.dial or ""
        object.__setattr__(self, "name", name)
        if isinstance(method, Chain) and not self._place:
            raise ExpungeError(
                f"dial of a chain is the number of a step, 0 to {len(method.steps) - 1}, a dot and a field of it, such "
                f"as 0.lr; got {name or None!r}."
            )
        known = [f.name for f in fields(self.owner) if _above_zero(getattr(self.owner, f.name))]
        there = f"There are: {', '.join(known)}." if known else "It has none, so it cannot be searched."
        if not name:
            raise ExpungeError(f"{method.name} has no dial on its card; name a field that is a number above 0. {there}")
        if self.field not in known:
            raise ExpungeError(
                f"dial must be a field of {self.owner.name} that is a number above 0; got {name!r}. {there}"
            )

    @property
    def owner(self) -> Method:
        """The method, or the step of it, that has the field."""
        return self.method.steps[int(self._place)] if isinstance(self.method, Chain) else self.method

    @property
    def field(self) -> str:
        """The field of the owner."""
        return self.name.partition(".")[2] if self._place else self.name

    @property
    def value(self) -> float:
        """Where it stands."""
        return float(getattr(self.owner, self.field))

    @property
    def rises(self) -> bool:
        """Whether a larger value forgets more, as the card says of its own dial; of other fields it is taken to."""
        return self.owner.card.dial_rises if self.field == self.owner.card.dial else True

    def at(self, value: float) -> Method:
        """The method with the dial at a value.

        Raises:
            ExpungeError: it refuses the value.
        """
        turned = replace(self.owner, **{self.field: value})
        if not isinstance(self.method, Chain):
            return turned
        steps = list(self.method.steps)
        steps[int(self._place)] = turned
        return replace(self.method, steps=tuple(steps))

    def values(self, factor: float) -> Generator[float, Answer, None]:
        """Values to try, one after the other; is sent what became of the last one.

        Until it is known from both sides the value moves by the factor, from then on to the geometric middle. A value
        that is refused says where the range ends on the side that the dial was moving to.
        """
        value = start = getattr(self.owner, self.field)
        known: set[float] = set()
        bounds: dict[Answer, float] = {}
        end: Answer | None = None  # which bound is a refused value
        while value not in known:
            known.add(value)
            answer = yield value
            if answer == "refused":
                if len(bounds) == 1:
                    end = "strong" if "weak" in bounds else "weak"
                if end is None:  # the start, or between two values that were not refused
                    return
                bounds[end] = value
            else:
                bounds[answer] = value
                end = None if end == answer else end
            if len(bounds) == 2:
                if max(bounds.values()) < NEAR * min(bounds.values()):
                    return
                value = math.sqrt(bounds["weak"] * bounds["strong"])
            else:
                value = value * factor if ("weak" in bounds) == self.rises else value / factor
            value = max(1, round(value)) if isinstance(start, int) else value

    @property
    def _place(self) -> str:
        """The number of the step; empty where there is none."""
        place, dot, field = self.name.partition(".")
        if not isinstance(self.method, Chain) or not (dot and field and place.isdecimal()):
            return ""
        return place if int(place) < len(self.method.steps) else ""


def _above_zero(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0
