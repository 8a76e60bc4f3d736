"""What a family of model computes."""

from expunge.task.base import Task
from expunge.task.classification import Classification

__all__ = ["Classification", "Task"]
