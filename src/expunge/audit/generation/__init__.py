"""Judging what a denoiser draws: a classifier looks at its images, class by class."""

from expunge.audit.generation.settings import Generation

__all__ = ["Generation"]
