"""Collect what `expunge run` left of the recipes into one page: `python benchmarks/recipes.py RUNS`.

RUNS is the folder with one run for each recipe, by the recipe's name: `expunge run recipes/NAME.yaml --out RUNS/NAME`.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

from common import RESULTS

COLUMNS = ("ua", "ra", "ta", "tfa", "mia", "avg_gap", "tow", "js", "ain")


def cell(values: list[float], places: int) -> str:
    if not values:
        return "–"
    spread = f" ± {statistics.stdev(values):.{places}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{places}f}{spread}"


def table(results: dict) -> list[str]:
    verdicts = {v["method"]: v["word"] for v in results["verdicts"]}
    shown = [c for c in COLUMNS if c in results["metrics"]]
    lines = [f"| row | {' | '.join(shown)} | × retrain | verdict |", "|" + "---|" * (len(shown) + 3)]
    for row in dict.fromkeys(m["method"] for m in results["models"]):
        some = [m for m in results["models"] if m["method"] == row]
        numbers = []
        for name in shown:
            values = [m["measurements"][name]["value"] for m in some if "value" in m["measurements"].get(name, {})]
            numbers.append(cell(values, 1 if results["metrics"][name]["unit"] == "%" else 2))
        ratios = [m["cost"]["ratio"] for m in some if m["cost"]["ratio"] is not None]
        cost = f"{statistics.median(ratios):.2f}" if ratios else "–"
        lines.append(f"| {row} | {' | '.join(numbers)} | {cost} | {verdicts.get(row, '')} |")
    return lines


def page(runs: Path) -> str:
    lines = [
        "# What the recipes reach",
        "",
        "Mean ± standard deviation over 3 paired seeds; percent, but for `tow`, `js` and `ain`. `retrain` is the",
        "reference. `retrain_again` compares retrainings of different seeds: nothing can be expected to come closer.",
        "`js` is the distance of the answers on forgotten rows to the retrained model of the same seed, `ain` the time",
        "to relearn relative to it (– where the retrained model knows the rows as well as the original did).",
        "`× retrain` is the median cost relative to the mean retraining of the same run; the machine was not quiet.",
        "",
        "Made by `expunge run recipes/NAME.yaml --out RUNS/NAME` for each, then `python benchmarks/recipes.py RUNS`.",
        "",
    ]
    for folder in sorted(p for p in runs.iterdir() if (p / "results.json").is_file()):
        results = json.loads((folder / "results.json").read_text())
        manifest = json.loads((folder / "manifest.json").read_text())
        lines += [f"## {folder.name}", "", results["question"]["text"], ""]
        lines += [*table(results), ""]
        lines += [f"Machine: {manifest['platform']}; torch {manifest['versions']['torch']}.", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "recipes.md").write_text(page(Path(sys.argv[1])))
    print(f"written: {RESULTS / 'recipes.md'}")
