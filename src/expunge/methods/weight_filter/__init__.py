"""WF-Net: gates on filters, neurons and attention, learned once for all classes; each class's row forgets it."""

from expunge.methods.weight_filter.method import WeightFilter

__all__ = ["WeightFilter"]
