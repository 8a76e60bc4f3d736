"""Homework: what is computed once and kept, addressed by its content."""

from expunge.artifact.checkpoint import TrainingCheckpoint
from expunge.artifact.store import Store

__all__ = ["Store", "TrainingCheckpoint"]
