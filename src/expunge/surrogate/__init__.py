"""Stand-in data: what is shown in place of the rows themselves."""

from expunge.surrogate.base import Draw, StandIn, Surrogate
from expunge.surrogate.relabel import Relabel

__all__ = ["Draw", "Relabel", "StandIn", "Surrogate"]
