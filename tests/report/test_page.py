from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from sample import HOSTILE, METRICS, NAMES, manifest, save

from expunge import report
from expunge.report.made import made

VOID = {"meta", "link", "img", "br", "wbr", "hr", "input"}


class Reader(HTMLParser):
    """Every start tag with its attributes, the text outside of style and script, and what is not balanced."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.wrong: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        self.wrong += self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.words))

    def count(self, tag: str, **wanted: str) -> int:
        return sum(t == tag and all(a.get(k.rstrip("_")) == v for k, v in wanted.items()) for t, a in self.tags)


@pytest.fixture(scope="module", params=["page", "hard_page", "bare_page"])
def reader(request: pytest.FixtureRequest) -> Reader:
    path: Path = request.getfixturevalue(request.param)
    return Reader(path.read_text(encoding="utf-8"))


def test_tags_are_balanced_and_ids_are_unique(reader: Reader) -> None:
    assert reader.wrong == []
    ids = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert all(attributes["href"][1:] in ids for _, attributes in reader.tags if _ in ("a", "use"))


def test_nothing_comes_from_elsewhere(reader: Reader) -> None:
    for tag, attributes in reader.tags:
        for name, value in attributes.items():
            if name in ("src", "href", "xlink:href", "data", "action", "poster", "srcset"):
                assert value is not None
                assert value.startswith(("data:", "#")), (tag, name, value)
            assert not name.startswith("on"), (tag, name)


def test_no_address_but_namespaces(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert re.sub(r'xmlns(:\w+)?="[^"]*"', "", text).count("://") == 0
    assert "@import" not in text
    assert re.findall(r"url\((?!#)", text) == []


def test_policy_allows_only_this_script(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)
    script = re.search(r"<script>(.*?)</script>", text, re.S)
    assert policy is not None
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert policy[1].startswith("default-src 'none';")
    assert f"script-src 'sha256-{digest}'" in policy[1].replace("&#43;", "+")
    assert "http" not in policy[1]


def test_every_colour_of_a_figure_is_a_variable_of_the_page(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    defined = set(re.findall(r"(--[\w-]+):", text))
    figures = "".join(re.findall(r"<svg.*?</svg>", text, re.S))
    assert set(re.findall(r"var\((--[\w-]+)\)", figures)) <= defined
    assert re.findall(r"#[0-9a-f]{6}\b", figures) == []


def test_names_are_escaped(hard_page: Path) -> None:
    text = hard_page.read_text(encoding="utf-8")
    reader = Reader(text)
    assert reader.count("script") == 1
    assert all(attributes.get("src", "").startswith("data:") for tag, attributes in reader.tags if tag == "img")
    assert "alert(1)" in reader.text
    assert "<script>alert" not in text
    assert re.sub(r"\s+", " ", HOSTILE[2]) in reader.text


def test_the_page_says_what_was_asked_and_found(page: Path, results: dict[str, Any]) -> None:
    reader = Reader(page.read_text(encoding="utf-8"))
    assert results["question"]["text"] in reader.text
    assert "Judged against 2 models retrained" in reader.text
    for verdict in results["verdicts"]:
        assert verdict["sentence"] in reader.text
    for title, *_, reading in METRICS.values():
        assert title in reader.text
        assert reading in reader.text
    assert "failed: the loss became infinite in epoch 3" in reader.text
    assert reader.count("article", class_="card v-within") == 1
    assert reader.count("article", class_="example") == len(results["examples"])


def test_every_figure_is_there(page: Path) -> None:
    text = Reader(page.read_text(encoding="utf-8")).text
    for title in (
        "Forgetting and usefulness",
        "Accuracy by class, before and after",
        "What the forgotten examples are taken for",
        "Which layers changed",
        "Attacks: who was in the training data?",
        "Scores that the attacks go by",
        "Cost",
        "Forgotten examples",
        "How it was made",
    ):
        assert title in text


def test_how_it_was_made(page: Path) -> None:
    reader = Reader(page.read_text(encoding="utf-8"))
    manifest = json.loads((page.parent / "manifest.json").read_text())
    for said in (manifest["command"], manifest["versions"]["torch"], *manifest["models"].values()):
        assert said in reader.text
    assert "schedule.name" in reader.text
    assert "results.json has the digest that the manifest gives" in reader.text


def test_models_without_settings_have_no_part_of_their_own(results: dict[str, Any], tmp_path: Path) -> None:
    bare = {**results, "models": [{**entry, "settings": {}} for entry in results["models"]]}
    titles = [title for title, _ in made(bare, manifest(bare, "")).groups]
    assert titles == ["request", "data", "recipe"]
    assert f"{NAMES[0]} settings" in [title for title, _ in made(results, manifest(results, "")).groups]


def test_table_has_a_row_for_each_method_and_retrain_apart(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    table = re.search(r"<table.*?</table>", text, re.S)
    assert table is not None
    bodies = re.findall(r"<tbody.*?</tbody>", table[0], re.S)
    named = [re.findall(r'<th scope="row" data-value="([^"]+)"', body) for body in bodies]
    assert named == [["retrain"], ["original", "retrain_again", *NAMES[:5]]]
    columns = table[0].count('scope="col"')
    assert all(row.count("<td") + 1 == columns for row in re.findall(r"<tr.*?</tr>", "".join(bodies), re.S))


def test_redrawing_gives_the_same_bytes_without_torch_or_the_rest_of_expunge(page: Path) -> None:
    before = page.read_bytes()
    code = (
        "import sys; from expunge.report import draw; draw(sys.argv[1]);"
        "ours = [m for m in sys.modules if m.startswith('expunge.')];"
        "other = [m for m in ours if not m.startswith(('expunge.report', 'expunge.errors'))];"
        "sys.exit(str(other) if other or 'torch' in sys.modules else 0)"
    )
    subprocess.run([sys.executable, "-c", code, str(page.parent)], check=True)
    assert page.read_bytes() == before


def test_without_retraining_the_page_says_so(bare_page: Path) -> None:
    text = Reader(bare_page.read_text(encoding="utf-8")).text
    assert "There is no retrained model to compare with" in text
    assert "There was no manifest.json" in text
    assert "Close to retraining" not in text


def test_changed_measurements_are_told(tmp_path: Path, results: dict[str, Any]) -> None:
    save(tmp_path, results)
    results["models"] = results["models"][:8]
    (tmp_path / "results.json").write_text(json.dumps(results))
    assert "results.json has changed since the audit" in report.draw(tmp_path).read_text(encoding="utf-8")


def test_parts_that_were_not_measured_are_left_out(tmp_path: Path, results: dict[str, Any]) -> None:
    for entry in results["models"]:
        for part in ("by_class", "attacks", "histogram", "predicted", "layers", "cost", "settings", "hash"):
            entry.pop(part)
        entry["measurements"] = {"ta": {"failed": "no unseen rows"}}
    for part in ("examples", "notes", "created"):
        results.pop(part)
    results["question"] = {"text": "Forget."}
    results["verdicts"] = []
    text = Reader(report.draw(save(tmp_path, results)).read_text(encoding="utf-8")).text
    assert "failed: no unseen rows" in text
    assert "No method was judged" in text
    assert "Which layers changed" not in text
