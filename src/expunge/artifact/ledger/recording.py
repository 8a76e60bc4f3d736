"""Recording: a ledger beside the one loop and its checkpoints, so that both always stand at the same step."""

from __future__ import annotations

from torch import Tensor, nn
from torch.optim import Optimizer

from expunge.artifact.ledger import manifest
from expunge.artifact.ledger.ledger import Ledger, is_first, processes
from expunge.data.rows import Rows
from expunge.descend import Checkpoint


class Recording:
    """Tells a ledger of every step of a descent over rows, and keeps it in step with the descent's checkpoint.

    Args:
        ledger: of this training.
        rows: the data.
        index: positions of the rows that are trained on.
        checkpoint: the descent's own. Default: none, so that an interrupted training begins again.
    """

    def __init__(self, ledger: Ledger, rows: Rows, index: Tensor, checkpoint: Checkpoint | None = None) -> None:
        self.ledger, self.rows, self.index, self.checkpoint = ledger, rows, index, checkpoint
        self.labelled = False

    def resume(self, model: nn.Module, optimizer: Optimizer, phase: int) -> int:
        """Go back to the last checkpoint whose step the ledger knows, with the ledger; returns the epochs done."""
        if processes() > 1 or not self.ledger.resumable:  # begins again, all alike
            self.ledger.rewind(0)
            return 0
        first = {name: value.clone() for name, value in model.state_dict().items()}
        done = self.checkpoint.resume(model, optimizer, phase) if self.checkpoint else 0
        step = self.ledger.named(f"{phase}.{done}") if done else 0
        if step is None or (step and not self.ledger.stands_at(step, model)):  # a ledger lost or left behind
            model.load_state_dict(first)
            optimizer.state.clear()
            done = step = 0
        self.ledger.rewind(step)
        return done

    def save(self, model: nn.Module, optimizer: Optimizer, phase: int, epochs: int) -> None:
        """First the ledger, then the checkpoint: one that is there always finds its step."""
        self.ledger.mark(f"{phase}.{epochs}")
        if self.checkpoint:
            self.checkpoint.save(model, optimizer, phase, epochs)

    def watch(self, model: nn.Module, optimizer: Optimizer) -> None:
        """Begin to record."""
        self.ledger.watch(model, optimizer, together=True)
        if not self.labelled and is_first():
            ids, labels = self.rows.ids[self.index.numpy()], self.rows.y[self.index]
            manifest.write_rows(self.ledger.path, ids.tolist(), labels.tolist(), self.rows.classes)
            self.labelled = True

    def uses(self, index: Tensor, shares: Tensor) -> None:
        """The rows of the next step, by their ids."""
        self.ledger.uses(self.rows.ids[index.cpu().numpy()], shares)


__all__ = ["Recording"]
