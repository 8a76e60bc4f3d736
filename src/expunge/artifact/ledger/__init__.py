"""The ledger: what each step of a training did to the weights, written down so that it can be taken back."""

from expunge.artifact.ledger.ledger import Ledger
from expunge.artifact.ledger.recording import Recording
from expunge.artifact.ledger.settings import Settings

__all__ = ["Ledger", "Recording", "Settings"]
