"""What a family of model computes."""

from expunge.task.base import Task
from expunge.task.choose import is_denoiser, task_of
from expunge.task.classification import Classification
from expunge.task.diffusion import Diffusion
from expunge.task.sampling import sample
from expunge.task.text_to_image import TextToImage

__all__ = ["Classification", "Diffusion", "Task", "TextToImage", "is_denoiser", "sample", "task_of"]
