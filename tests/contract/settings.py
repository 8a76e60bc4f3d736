"""What each method needs to do its work on digits, where its defaults, made for larger data, do not.

A method that is not named here is tested with its defaults.
"""

from __future__ import annotations

from typing import Any

FIELDS: dict[str, dict[str, Any]] = {
    "finetune": {"epochs": 6, "lr": 0.2},
    "neggrad_plus": {"alpha": 0.93, "lr": 0.1, "epochs": 3},
    "l1_sparse": {"epochs": 6, "lr": 0.2, "gamma": 1e-3},
    "unsir": {"lr": 0.01, "repair_lr": 0.005, "batch_size": 64},
    "weight_filter": {"per_class": 100, "epochs": 10, "lr": 0.3, "batch_size": 64, "draws": 1, "retain": 1.0},
    "scrub": {"cap": None, "clip_norm": None},
    "bad_teacher": {"lr": 3e-3},
    "boundary_shrink": {"lr": 1e-3},
    "boundary_expand": {"lr": 1e-3},
    "partial_label_flip": {"lr": 0.03, "epochs": 20},
    "partial_optimization": {"lr": 0.03, "epochs": 20},
    "search": {"of": {"name": "neggrad_plus", "alpha": 0.93, "lr": 0.1, "epochs": 3}, "tries": 2},
    "chain": {"steps": [{"name": "gradient_ascent"}, {"name": "last_layers"}]},
}

# what does not forget a class of digits, and why
KEEPS = {
    "original": "it does nothing",
    "fisher": "noise that spares the rest spares the class",
    "gradient_ascent": "at a rate that spares the rest, five passes over the class do not suffice",
    "finetune": "nothing but forgetting works against it, and digits are learnt for good",
    "l1_sparse": "likewise; a penalty on all weights is not aimed at the class",
}
