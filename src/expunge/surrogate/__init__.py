"""Stand-in data: what is shown in place of the rows themselves."""

from expunge.surrogate.assign import Assign
from expunge.surrogate.base import Draw, StandIn, Surrogate
from expunge.surrogate.relabel import Relabel

__all__ = ["Assign", "Draw", "Relabel", "StandIn", "Surrogate"]
