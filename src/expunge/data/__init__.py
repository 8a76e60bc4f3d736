"""Reading data: rows with ids, from a name, a file, a folder or the user's own dataset."""

from __future__ import annotations

from expunge.data.adapt import as_rows
from expunge.data.catalogue import names
from expunge.data.load import load
from expunge.data.rows import Rows, Scale

__all__ = ["Rows", "Scale", "as_rows", "load", "names"]
