"""Store: tensors kept under a digest of everything they depend on, so that a changed input is never served stale."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from expunge.errors import ExpungeError
from expunge.io import file_digest, folder_problems, read_json, read_tensors, save_tensors, write_json


def default_root() -> Path:
    """The folder for what is kept: `$EXPUNGE_CACHE`, or else `expunge` in the user's cache folder."""
    given = os.environ.get("EXPUNGE_CACHE")
    base = os.environ.get("XDG_CACHE_HOME")
    return Path(given) if given else (Path(base) if base else Path.home() / ".cache") / "expunge"


class Store:
    """Tensors with plain data about them, each entry a folder named by the digest of its key.

    Args:
        root: the folder. Default: `default_root()`.
    """

    def __init__(self, root: Path | str | None = None) -> None:
        self.root = Path(root) if root is not None else default_root()

    def problems(self) -> list[str]:
        """Why nothing could be kept here, a sentence each."""
        return [f"{p} Trained models are kept there; set EXPUNGE_CACHE." for p in folder_problems(self.root, True)]

    def folder(self, key: Mapping[str, Any]) -> Path:
        """Where the entry of a key lies, whether it is there or not."""
        text = json.dumps(key, sort_keys=True, default=str)
        return self.root / hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def put(self, key: Mapping[str, Any], tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
        """Keep tensors under a key; the entry counts from the moment its JSON file is there."""
        folder = self.folder(key)
        save_tensors(folder / "tensors.safetensors", tensors, about)
        digest = file_digest(folder / "tensors.safetensors")
        write_json(
            folder / "about.json", {"key": json.loads(json.dumps(key, default=str)), **about, "checksum": digest}
        )

    def keep(
        self, what: str, key: Mapping[str, Any], tensors: Mapping[str, Tensor], about: Mapping[str, Any]
    ) -> list[str]:
        """As `put`, for what was computed and can be computed again: a failure costs no result.

        Args:
            what: how a sentence on it begins, e.g. ``"The gates are"``.
            key: see `put`.
            tensors: see `put`.
            about: see `put`.

        Returns:
            Why it could not be kept, one sentence; nothing where it is.
        """
        try:
            self.put(key, tensors, about)
        except ExpungeError as error:
            why = getattr(error.__cause__, "strerror", None) or str(error)  # of all entries alike, so said once
            return [
                f"{what} not kept, and made anew next time; set EXPUNGE_CACHE to a folder that can be written, on a "
                f"disk with room: {self.root} ({why})."
            ]
        return []

    def get(self, key: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The tensors of a key and what is said of them; none when there is no entry, or it is damaged.

        A damaged entry is named in a warning and removed, so that it is made anew.
        """
        folder = self.folder(key)
        if not os.path.isfile(folder / "about.json"):  # unlike Path.is_file, no error where the folder is not ours
            return None
        try:
            about = read_json(folder / "about.json")
            if file_digest(folder / "tensors.safetensors") != about["checksum"]:
                raise ExpungeError("its checksum does not match")
            return read_tensors(folder / "tensors.safetensors")[0], about
        except (ExpungeError, OSError, KeyError, TypeError) as error:
            warnings.warn(f"The cached entry {folder} is damaged ({error}); it is made anew.", stacklevel=2)
            shutil.rmtree(folder, ignore_errors=True)
            return None
