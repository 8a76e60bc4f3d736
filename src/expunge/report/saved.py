"""Reading a dossier: ``results.json`` and ``manifest.json``, checked before anything is drawn."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from expunge.errors import ExpungeError, raise_if

SCHEMA = 1


def read_results(folder: Path) -> dict[str, Any]:
    """What ``results.json`` in `folder` holds.

    Raises:
        ExpungeError: the file is missing, is not JSON, has another schema version or lacks parts.
    """
    path = folder / "results.json"
    if not path.is_file():
        raise ExpungeError(
            f"There is no results.json in {folder}, so there is nothing to draw. "
            "Give the folder that an audit saved (report.save(FOLDER), or `out:` of the run)."
        )
    results = _read_json(path, "Run the audit again, or restore the file from a copy.")
    if not isinstance(results, dict) or "schema" not in results:
        raise ExpungeError(f"{path} is JSON, but not the measurements of an audit: it has no 'schema' field.")
    if results["schema"] != SCHEMA:
        raise ExpungeError(
            f"{path} has schema version {results['schema']!r}; this expunge draws version {SCHEMA}. "
            f"It was written by expunge {results.get('expunge', 'of an unknown version')}: "
            "draw it with that version, or run the audit again."
        )
    raise_if([f"{path}: {problem}" for problem in problems_of(results)])
    return results


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """What ``manifest.json`` in `folder` holds; None where there is none.

    Raises:
        ExpungeError: the file is not a JSON object.
    """
    path = folder / "manifest.json"
    if not path.is_file():
        return None
    manifest = _read_json(path, "Restore it from a copy, or delete it: the page then says that it is missing.")
    if not isinstance(manifest, dict):
        raise ExpungeError(f"{path} should hold a JSON object and holds a {type(manifest).__name__}.")
    return manifest


def problems_of(results: dict[str, Any]) -> list[str]:
    """What is missing or of the wrong kind, one sentence each; empty when the page can be drawn."""
    kinds: dict[str, type] = {"question": dict, "metrics": dict, "models": list, "verdicts": list}
    found = [
        f"'{key}' should be a {kind.__name__} and is {type(results.get(key)).__name__}."
        for key, kind in kinds.items()
        if not isinstance(results.get(key), kind)
    ]
    if found:
        return found
    if "text" not in results["question"]:
        found.append("'question' has no 'text'.")
    if not results["models"]:
        found.append("'models' is empty: no model was measured.")
    parts = [(f"metrics[{name!r}]", about) for name, about in results["metrics"].items()]
    parts += [(f"examples[{index}]", one) for index, one in enumerate(results.get("examples") or [])]
    found += [
        f"{where} should be a dict and is {type(value).__name__}."
        for where, value in parts
        if not isinstance(value, dict)
    ]
    needed = {"models": ("method", "seed", "measurements"), "verdicts": ("method", "word", "sentence")}
    for part, keys in needed.items():
        for index, entry in enumerate(results[part]):
            lacking = [key for key in keys if not isinstance(entry, dict) or key not in entry]
            if lacking:
                found.append(f"{part}[{index}] lacks {', '.join(lacking)}.")
    return found


def matches_manifest(folder: Path, manifest: dict[str, Any] | None) -> bool | None:
    """Whether ``results.json`` still has the BLAKE2b digest in the manifest; None where it gives none.

    The length of the digest is taken from the manifest: BLAKE2b is defined for each length up to 64 bytes.
    """
    files = (manifest or {}).get("files")
    digest = str(files.get("results.json") or "") if isinstance(files, dict) else ""
    digest = digest.removeprefix("blake2b").lstrip(":-").lower()
    if len(digest) < 16 or len(digest) > 128 or len(digest) % 2 or set(digest) - set("0123456789abcdef"):
        return None
    found = hashlib.blake2b((folder / "results.json").read_bytes(), digest_size=len(digest) // 2).hexdigest()
    return found == digest


def _read_json(path: Path, advice: str) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ExpungeError(f"{path} is not readable JSON ({error}). {advice}") from error
    except OSError as error:
        raise ExpungeError(f"{path} cannot be read ({error.strerror}). Check its permissions.") from error
