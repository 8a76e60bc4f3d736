"""Experiment: from a YAML file to everything that a run needs, with all that is wrong told before any compute.

`text` reads YAML, `own` finds the user's own functions, `parts` makes an object of each setting, `assemble` puts them
together and checks that they fit, and `folder` keeps the output of one experiment apart from others'.
"""

from expunge.experiment.assemble import Experiment, from_dict, read
from expunge.experiment.parts import build_model, load_data, make_request
from expunge.experiment.text import parse_seeds, parse_value

__all__ = [
    "Experiment",
    "build_model",
    "from_dict",
    "load_data",
    "make_request",
    "parse_seeds",
    "parse_value",
    "read",
]
