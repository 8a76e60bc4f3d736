"""The page: everything gathered, put through the template and written in one go."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from expunge.errors import ExpungeError
from expunge.report import gallery, tables, verdicts, wording
from expunge.report.made import made
from expunge.report.saved import matches_manifest, read_manifest, read_results
from expunge.report.tuned import labelled

HERE = Path(__file__).parent
IMAGE = re.compile(r"data:image/(png|jpeg|gif|webp);base64,[A-Za-z0-9+/=\s]+")
MOST_EXAMPLES = 24
ASKED = ("data", "scope", "forget", "keep", "gone", "unseen")  # of the question; a page does without them


def write(folder: Path) -> Path:
    """The path of the page drawn from the measurements in `folder`; an existing page is replaced at once."""
    results = read_results(folder)
    manifest = read_manifest(folder)
    text = render(results, manifest, matches_manifest(folder, manifest))
    path = folder / "report.html"
    try:
        _replace(path, text)
    except OSError as error:
        raise ExpungeError(
            f"{path} cannot be written ({error.strerror}). Check that the folder can be written to, "
            "that the disk is not full and that nothing else has this name."
        ) from error
    return path


def _replace(path: Path, text: str) -> None:
    """Writes beside `path` first, so that there is always a whole page there."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".report-", suffix=".html")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="replace", newline="\n") as file:
            file.write(text)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)  # mkstemp makes it private; a report is an ordinary file
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def render(results: dict[str, Any], manifest: dict[str, Any] | None, intact: bool | None = None) -> str:
    """The page as HTML.

    Args:
        results: what ``results.json`` holds.
        manifest: what ``manifest.json`` holds; None where there is none.
        intact: whether the measurements have the digest in the manifest; None where that is unknown.
    """
    results = labelled(results)
    rows = tables.rows(results)
    methods, checks = verdicts.cards(results, rows)
    style = (HERE / "page.css").read_text(encoding="utf-8")
    script = (HERE / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        figure=wording.figure,
        soft=_soft,
        interval=wording.interval,
        seconds=wording.seconds,
        ratio=wording.ratio,
    )
    return environment.get_template("page.html.j2").render(
        style=Markup(style),
        script=Markup(script),
        script_digest=digest,
        question={**dict.fromkeys(ASKED), **results["question"]},
        created=str(results.get("created") or ""),
        forgotten=[wording.class_name(results, i) for i in results["question"].get("forgotten") or []],
        metrics=_metrics(results, rows),
        rows=rows,
        cards=methods,
        checks=checks,
        tally=verdicts.tally(methods),
        key_of=verdicts.key_of,
        order=list(verdicts.KEYS.values()),
        compared=_compared(results, rows),
        sections=[_marked(section) for section in gallery.sections(results, rows)],
        examples=_examples(results),
        hidden_examples=max(0, len(results.get("examples") or []) - MOST_EXAMPLES),
        notes=[str(note) for note in results.get("notes") or []],
        made=made(results, manifest),
        intact=intact,
        several_seeds=any(len(cell.each) > 1 for row in rows for cell in row.cells.values()),
    )


def _soft(name: object) -> Markup:
    """`name`, escaped, with leave to break the line where its words join."""
    return Markup(re.sub(r"([_.+/])(?=.)", r"\1<wbr>", str(escape(name))))


def _marked(section: gallery.Section) -> dict[str, Any]:
    panels = [(heading, Markup(svg)) for heading, svg in section.panels]
    return {**vars(section), "panels": panels}


def _metrics(results: dict[str, Any], rows: Sequence[tables.Row]) -> list[dict[str, str]]:
    retrain = next((row for row in rows if row.method == "retrain"), None)
    found = []
    for name, about in results["metrics"].items():
        unit = str(about.get("unit") or "")
        ideal, at = about.get("ideal"), retrain.cells[name].value if retrain else None
        wanted = {"higher": "higher is better", "lower": "lower is better"}.get(str(about.get("direction")), "")
        if tables.number(ideal) is not None:
            wanted = f"ideal {wording.figure(float(ideal), unit)}"
        elif ideal == "retrain":
            wanted = "ideal: as retrain" if at is None else f"ideal {wording.figure(at, unit)}, as retrain"
        title = str(about.get("title") or name)
        reading = str(about.get("reading") or "")
        found.append({"name": name, "title": title, "unit": unit, "ideal": wanted, "reading": reading})
    return found


def _compared(results: dict[str, Any], rows: Sequence[tables.Row]) -> str:
    seeds = len(tables.entries_of(results, "retrain"))
    if not seeds:
        return (
            "There is no retrained model to compare with, so no method can be judged. "
            "The measurements are shown as they are."
        )
    models = "one model" if seeds == 1 else f"{seeds} models"
    return f"Judged against {models} retrained from the start without the forgotten data."


def _examples(results: dict[str, Any]) -> list[dict[str, Any]]:
    found = []
    for example in (results.get("examples") or [])[:MOST_EXAMPLES]:
        image = str(example.get("image") or "")
        groups: dict[Any, list[str]] = {}
        for method, predicted in (example.get("predicted") or {}).items():
            if method != "retrain_again":
                groups.setdefault(predicted, []).append(str(method))
        found.append(
            {
                "id": str(example.get("id", "")),
                "label": wording.class_name(results, example.get("label")),
                "image": image if IMAGE.fullmatch(image) else "",
                "text": wording.label(example["text"], 400) if example.get("text") else "",
                "predicted": [
                    (wording.class_name(results, p), p == example.get("label"), who) for p, who in groups.items()
                ],
            }
        )
    return found
