"""Gates: for each class to forget, a number from 0 to 1 on every filter, neuron and part of attention."""

from expunge.artifact.gates.explained import explained
from expunge.artifact.gates.gated import Gated
from expunge.artifact.gates.units import choose, units

__all__ = ["Gated", "choose", "explained", "units"]
