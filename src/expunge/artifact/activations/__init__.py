"""Activations: what the inputs of a model's layers look like, class by class, as sums of their outer products."""

from expunge.artifact.activations.layers import Layer, find_layers
from expunge.artifact.activations.moments import by_class, moments, share

__all__ = ["Layer", "by_class", "find_layers", "moments", "share"]
