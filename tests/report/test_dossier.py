from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sample import sample, save

from expunge import report
from expunge.errors import ExpungeError
from expunge.report.saved import matches_manifest, read_manifest


def test_folder_without_results(tmp_path: Path) -> None:
    with pytest.raises(ExpungeError, match=r"no results\.json in .*Give the folder that an audit saved"):
        report.draw(tmp_path)


def test_broken_json(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text('{"schema": 1, ')
    with pytest.raises(ExpungeError, match=r"not readable JSON .*Run the audit again"):
        report.draw(tmp_path)


def test_not_text(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_bytes(b"\x80\x02\xff")
    with pytest.raises(ExpungeError, match="not readable JSON"):
        report.draw(tmp_path)


@pytest.mark.parametrize("content", ["[]", "{}", '"text"', "3"])
def test_other_json(tmp_path: Path, content: str) -> None:
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(ExpungeError, match="not the measurements of an audit"):
        report.draw(tmp_path)


def test_another_schema_version(tmp_path: Path, results: dict[str, Any]) -> None:
    results["schema"] = 2
    with pytest.raises(ExpungeError, match=r"schema version 2; this expunge draws version 1.*expunge 0\.1\.0"):
        report.draw(save(tmp_path, results))


def test_all_missing_parts_at_once(tmp_path: Path, results: dict[str, Any]) -> None:
    del results["models"][0]["seed"], results["verdicts"][1]["sentence"]
    with pytest.raises(ExpungeError) as caught:
        report.draw(save(tmp_path, results))
    assert "models[0] lacks seed" in str(caught.value)
    assert "verdicts[1] lacks sentence" in str(caught.value)


def test_no_models(results: dict[str, Any]) -> None:
    results["models"] = []
    with pytest.raises(ExpungeError, match="no model was measured"):
        report.summary(results)


def test_broken_manifest(tmp_path: Path, results: dict[str, Any]) -> None:
    save(tmp_path, results)
    (tmp_path / "manifest.json").write_text("[1]")
    with pytest.raises(ExpungeError, match="should hold a JSON object and holds a list"):
        report.draw(tmp_path)


def test_metrics_and_examples_of_the_wrong_kind(tmp_path: Path, results: dict[str, Any]) -> None:
    results["metrics"]["ua"], results["examples"] = None, [3]
    with pytest.raises(ExpungeError) as caught:
        report.draw(save(tmp_path, results))
    assert "metrics['ua'] should be a dict and is NoneType" in str(caught.value)
    assert "examples[0] should be a dict and is int" in str(caught.value)


def test_a_page_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    save(tmp_path, sample(methods=1, seeds=1))
    (tmp_path / "report.html").mkdir()
    with pytest.raises(ExpungeError, match=r"report\.html cannot be written"):
        report.draw(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"report.html", "results.json", "manifest.json"}


@pytest.mark.parametrize("prefix", ["", "blake2b:", "blake2b-"])
def test_digest_of_the_measurements(tmp_path: Path, results: dict[str, Any], prefix: str) -> None:
    save(tmp_path, results)
    manifest = read_manifest(tmp_path)
    assert manifest is not None
    manifest["files"]["results.json"] = prefix + manifest["files"]["results.json"]
    assert matches_manifest(tmp_path, manifest) is True
    (tmp_path / "results.json").write_text(json.dumps(results) + " ")
    assert matches_manifest(tmp_path, manifest) is False
    assert matches_manifest(tmp_path, {"files": {"results.json": "unknown"}}) is None
    assert matches_manifest(tmp_path, None) is None
