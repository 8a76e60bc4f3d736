"""Attacks that ask of an example whether the model was trained on it."""
