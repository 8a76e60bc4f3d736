"""What the pages say is so: code runs, files and commands are accepted, links lead somewhere, defaults are right."""

from __future__ import annotations

import dataclasses
import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from pages import BY_NAME, ROOT, Block, anchors, blocks, commands, links, prose, table

import expunge as ex
from expunge import registry
from expunge.audit.generation import Generation
from expunge.audit.generation.metric import METRICS as GENERATION_METRICS
from expunge.audit.metric import METRICS
from expunge.audit.relearn import Relearn
from expunge.cli import app
from expunge.experiment import parse_value, read
from expunge.experiment.parts import load_data
from expunge.models.table import TABLE
from expunge.phase import Phase, Term

METHODS = [n for n in registry.names() if registry.get(n).__module__.startswith("expunge.methods.")]
TABLES: list[tuple[str, str, Any]] = [
    *((f"docs/methods/{name}.md", "field", registry.get(name)) for name in METHODS),
    ("docs/recipe.md", "field", ex.Recipe),
    ("docs/descend.md", "of a term", Term),
    ("docs/descend.md", "of a phase", Phase),
    ("docs/audit.md", "field", Relearn),
    ("docs/task.md", "field", ex.Classification),
    ("docs/diffusion.md", "field", ex.Diffusion),
    ("docs/diffusion.md", "setting", Generation),
]
NEEDS = {"docs/diffusion.md": "diffusers"}  # what a page cannot be tried without
RUNNING = [page for page in BY_NAME if any(block.runs for block in blocks(page, "python"))]
FILES = [block for page in BY_NAME for block in blocks(page, "yaml") if block.runs]
COMMANDS = [(block, words) for page in BY_NAME for block, words in commands(page)]


# -- what can be run -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", RUNNING)
def test_the_python_of_a_page_runs_from_top_to_bottom(page: str, tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip(NEEDS.get(page, "expunge"))
    monkeypatch.setattr(registry, "_ADDED", dict(registry._ADDED))  # methods that a page registers stay on it
    monkeypatch.setattr(sys, "argv", [page])
    module = types.ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)  # where dataclasses and type hints look names up
    path = tmp_path / "page.py"
    chosen = [block for block in blocks(page, "python") if block.runs]
    # one file with the lines of the page, so that errors name them and functions have a source
    lines = [""] * (chosen[-1].line + chosen[-1].code.count("\n"))
    for block in chosen:
        lines[block.line - 1 : block.line - 1 + block.code.count("\n")] = block.code.splitlines()
    path.write_text("\n".join(lines))
    module.__dict__["__file__"] = str(path)
    exec(compile(path.read_text(), str(path), "exec"), module.__dict__)


def test_a_page_that_is_wrong_would_fail(tmp_path: Path, monkeypatch) -> None:
    """The control: the machinery above reports what a block raises."""
    monkeypatch.setitem(BY_NAME, "wrong.md", tmp_path / "wrong.md")
    (tmp_path / "wrong.md").write_text("# Wrong\n\n```python\nimport expunge as ex\n\nex.lern\n```\n")
    with pytest.raises(AttributeError, match="lern"):
        test_the_python_of_a_page_runs_from_top_to_bottom("wrong.md", tmp_path, monkeypatch)


def test_few_blocks_are_not_run() -> None:
    held_back = [str(b) for page in BY_NAME for b in blocks(page, "python", "yaml") if not b.runs]
    assert len(held_back) <= 3, held_back


@pytest.mark.parametrize("block", FILES, ids=str)
def test_a_yaml_file_of_a_page_is_accepted(block: Block, readers_folder: Path) -> None:
    pytest.importorskip(NEEDS.get(block.page, "expunge"))
    path = readers_folder / "run.yaml"
    path.write_text(block.code)
    experiment = read(path)
    assert experiment.methods or experiment.given or "methods" not in block.code


@pytest.mark.parametrize(("block", "words"), COMMANDS, ids=lambda v: " ".join(v) if isinstance(v, list) else str(v))
def test_a_command_of_a_page_is_one(block: Block, words: list[str]) -> None:
    group = typer.main.get_command(app)
    verbs: dict[str, Any] = group.commands  # type: ignore[attr-defined]
    if words and not words[0].startswith("-"):
        assert words[0] in verbs, f"{block}: there is no verb {words[0]!r}"
        command, words = verbs[words[0]], words[1:]
    else:
        command = group
    if "--help" in words or "--version" in words:
        known = {option for p in command.params for option in p.opts} | {"--help"}
        assert {w for w in words if w.startswith("-")} <= known
        return
    context = command.make_context("expunge", list(words))  # parses, and runs nothing
    if method := context.params.get("method") or (context.params.get("name") if command.name == "methods" else None):
        fields = [change.partition("=") for change in context.params.get("changes", [])]
        registry.make(method, {name: parse_value(value, name) for name, _, value in fields})


# -- what is told --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", BY_NAME)
def test_links_lead_somewhere(page: str) -> None:
    for target in links(page):
        path, _, anchor = target.partition("#")
        there = (BY_NAME[page].parent / path).resolve() if path else BY_NAME[page]
        assert there.exists(), f"{page}: {target}"
        assert not anchor or anchor in anchors(there), f"{page}: {target}"


def test_the_index_names_every_page() -> None:
    listed = {target for target in links("docs/README.md") if not target.startswith("../")}
    pages = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")} - {"README.md"}
    assert listed == pages


@pytest.mark.parametrize("name", ex.__all__)
def test_every_public_name_is_in_the_documentation(name: str) -> None:
    text = "".join(path.read_text(encoding="utf-8") for page, path in BY_NAME.items() if page.startswith("docs/"))
    assert re.search(rf"\b(ex|expunge)\.{name}\b", text)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_page_that_is_about_it(name: str) -> None:
    text = prose(f"docs/methods/{name}.md")
    assert text.startswith(f"# `{name}`")
    assert "## Fields" in text
    assert "## Cost" in text
    if name not in ("original", "chain"):
        assert "## When it fails" in text
    paper = re.search(r"arXiv:\S+", registry.get(name).card.paper)
    assert paper is None or paper[0].rstrip(",") in text


@pytest.mark.parametrize(("page", "first", "cls"), TABLES, ids=lambda v: v if isinstance(v, str) else "")
def test_every_field_is_told_with_its_default(page: str, first: str, cls: Any) -> None:
    expected = {f.name: _default(f) for f in dataclasses.fields(cls)}
    if not expected:
        assert "None" in prose(page)
        return
    told = {row[0].strip("`"): row[1].strip("`") for row in table(page, first)}
    assert set(told) == set(expected)
    for name, text in told.items():
        default = expected[name]
        if default is dataclasses.MISSING:
            assert text == "needed", name
        else:
            plain = list(default) if isinstance(default, tuple) else default
            assert text == str(default) or parse_value(text, name) == plain, f"{name}: {text} is {default!r}"


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default


def test_every_number_of_an_audit_is_told_as_it_is() -> None:
    told = {row[0].strip("`"): row[1:4] for row in table("docs/audit.md", "name")}
    expected = {
        name: [m.unit or "–", m.direction, m.ideal if isinstance(m.ideal, str) else f"{m.ideal:g}"]
        for name, m in METRICS.items()
    }
    assert told == expected


def test_every_number_of_a_generation_audit_is_told() -> None:
    told = [name for row in table("docs/diffusion.md", "number") for name in re.findall(r"`(\w+)`", row[0])]
    assert told == list(GENERATION_METRICS)


def test_every_circumstance_is_told() -> None:
    assert {row[0].strip("`") for row in table("docs/method.md", "field")} == {
        f.name for f in dataclasses.fields(ex.Run)
    }


def test_every_field_of_the_results_is_told(digits_pair: tuple[ex.Rows, ex.Rows]) -> None:
    """Those of an audit of classifiers, and what one of denoisers and a ledger add."""
    train, test = (rows.take(range(100)) for rows in digits_pair)
    recipe = ex.Recipe(model={"name": "mlp", "hidden": [8]}, epochs=0)
    results = ex.audit(
        {}, ex.Request(train, classes=[3]), unseen=test, recipe=recipe, seeds=1, attacks=["loss"], relearn=False
    ).results
    there = {*results, *results["models"][0], "generation", "ledger", "samples"}
    text = prose("docs/report.md")
    told = {name for cell in re.findall(r"^\| (`.+?) \|", text, re.M) for name in re.findall(r"`(\w+)`", cell)}
    assert there <= told


def test_every_setting_of_the_data_is_told() -> None:
    (cell,) = (row[1] for row in table("docs/command-line.md", "setting") if row[0] == "`data`")
    with pytest.raises(ex.ExpungeError, match="There are: ") as caught:
        load_data({"nothing": 1})
    known = re.findall(r"\w+", str(caught.value).partition("There are: ")[2])
    assert len(known) > 5
    assert set(known) <= set(re.findall(r"`(\w+)", cell))


def test_every_field_of_the_denoiser_is_told() -> None:
    told = {row[0].strip("`"): parse_value(row[1].strip("`"), row[0]) for row in table("docs/models.md", "of `unet`")}
    plain = {k: list(v) if isinstance(v, tuple) else v for k, v in ex.models.fields("unet").items()}
    assert told == plain


def test_every_model_is_told_as_it_is() -> None:
    told = {row[0].strip("`"): row[1:] for row in table("docs/models.md", "name")}
    expected = {}
    for name in ex.models.names():
        counts = []
        for channels, size in ((1, 28), (3, 32)):
            with torch.device("meta"):
                model = ex.models.build(name, channels=channels, size=size, classes=10)
            counts.append(f"{sum(p.numel() for p in model.parameters()):,}")
        smallest = TABLE[name].smallest(ex.models.fields(name))
        expected[name] = [*counts, str(smallest), ex.models.source(name)]
    assert told == expected


def test_every_field_of_a_model_is_told_with_its_default() -> None:
    for name, cell in table("docs/models.md", "model"):
        found = dict(re.findall(r"`(\w+): ([^`]+)`", cell))
        plain = {k: list(v) if isinstance(v, tuple) else v for k, v in ex.models.fields(name.strip("`")).items()}
        assert {key: parse_value(value, key) for key, value in found.items()} == plain, name


def test_the_pages_are_short_and_their_lines_too() -> None:
    for page, path in ((page, path) for page, path in BY_NAME.items() if page != "README.md"):
        lines = path.read_text(encoding="utf-8").splitlines()
        assert len(lines) <= 200, page
        long = [n for n, line in enumerate(lines, 1) if len(line) > 120 and not line.startswith("|")]
        assert not long, f"{page}: lines {long}"
