"""What gates tell: how far each layer is closed for each class, what is closed most, and whether that explains it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from expunge.report import wording
from expunge.report.figures import cost as bars
from expunge.report.figures.heat import heat
from expunge.report.figures.maps import maps
from expunge.report.gallery.section import MOST_ROWS, Section, facts_of, forgotten, items, mapping, matrix
from expunge.report.tables import Row, mean, mean_lists, methods_of, number

MOST_CLASSES = 12  # columns
MOST_PANELS = 4
Told = Sequence[Mapping[str, Any]]


def closed(results: dict[str, Any], rows: Sequence[Row]) -> Section | None:
    """How far each layer is closed for each class, a map for each method with gates; None where there is none."""
    panels, cut = [], ""
    for i, (method, told) in enumerate(_with_gates(results)):
        layers = [_short(str(mapping(layer).get("name")), 26) for layer in items(told[0].get("layers"))]
        classes = [str(name) for name in items(told[0].get("classes"))]
        alike = [t for t in told if all(t.get(part) == told[0].get(part) for part in ("layers", "classes"))]
        means = [mean_lists([_at(items(t.get("closed")), c) for t in alike]) for c in range(len(classes))]
        grid = [[row[j] if j < len(row) else None for row in means] for j in range(len(layers))]
        which, columns = _shown_rows(grid), _shown_columns(classes, _gone(results))
        grid = [[grid[j][c] for c in columns] for j in which]
        if not any(value is not None for values in grid for value in values):
            continue
        if len(which) < len(layers) or len(columns) < len(classes):
            cut = " Shown: the layers that differ most between classes, and the forgotten classes first."
        most = max(value or 0.0 for values in grid for value in values) or 1.0
        tint = [[None if value is None else value / most for value in values] for values in grid]
        names = [f"{classes[c]}, forgotten" if classes[c] in _gone(results) else classes[c] for c in columns]
        about = f"How far {method} closes each layer for each class"
        drawn = heat(f"gates-{i}", about, [layers[j] for j in which], names, grid, tint=tint)
        panels.append((method, drawn))
    if not panels:
        return None
    caption = (
        "One round learned gates for every class. For each column's class, how far the gates of a layer are closed: "
        "the mean of 1 − gate over its filters, neurons or attention channels, in percent, mean over seeds. Dark cells "
        f"are where closing was needed; another round may close others, and all weights are still in the original.{cut}"
    )
    return Section("Which layers each class needs", caption, tuple(panels), "wide")


def most(results: dict[str, Any], rows: Sequence[Row]) -> Section | None:
    """The units that are closed most for the forgotten classes; None where that was not saved."""
    panels = []
    for i, (method, told) in enumerate(_with_gates(results)):
        names = [str(name) for name in items(told[0].get("classes"))]
        wanted = [c for c, name in enumerate(names) if name in _gone(results)] or list(range(len(names)))
        for c in wanted[:MOST_PANELS]:
            units = [pair for pair in items(_at(items(told[0].get("most")), c)) if _is_unit(pair)]
            shown = [(_short(str(name), 22), min(max(value, 0.0), 1.0), f"{value:.2f}") for name, value in units]
            if shown:
                about = f"What {method} closes most for class {names[c]}"
                panels.append((f"{method}: class {names[c]}", bars.cost(f"gates-most-{i}-{c}", about, shown)))
    if not panels:
        return None
    caption = (
        "First seed. Filters, neurons and attention channels, by layer and number, whose gates are closed most where "
        "the class is to be forgotten; 1 is shut."
    )
    return Section("What is closed most", caption, tuple(panels), "pair")


def places(results: dict[str, Any], rows: Sequence[Row]) -> Section | None:
    """Maps of gates beside those of other explainers; None where there are none."""
    for method, facts in _explained(results):
        saved = [mapping(one) for one in items(facts[0].get("pictures"))]
        found = [mapping(one.get("maps")) for one in saved]
        there = list(dict.fromkeys(name for some in found for name in some))
        scored = [mapping(row).get("explainer") for row in items(facts[0].get("scores"))]
        columns = sorted(there, key=lambda name: scored.index(name) if name in scored else len(scored))
        if not columns:
            continue
        heats = [[some.get(name) for name in columns] for some in found]
        names, images = [f"image {i}" for i in range(1, len(saved) + 1)], [one.get("image") for one in saved]
        drawn = maps("gates-maps", "Maps by gates and by other explainers", names, columns, images, heats)
        caption = (
            f"First seed of {method}: what speaks for the forgotten class in unseen images of it, under the original. "
            "The map of the gates is what closing them would take from the class at each place; each map is on its own "
            "scale."
        )
        return Section("Where the gates look", caption, (("", drawn),), "wide")
    return None


def scores(results: dict[str, Any], rows: Sequence[Row]) -> Section | None:
    """Insertion and deletion of those maps; None where they were not measured."""
    for method, facts in _explained(results):
        each = [{str(mapping(r).get("explainer")): mapping(r) for r in items(f.get("scores"))} for f in facts]
        names = list(dict.fromkeys(name for seed in each for name in seed))
        measures = ("insertion", "deletion")
        grid = [[mean([seed.get(name, {}).get(m) for seed in each]) for m in measures] for name in names]
        if not any(value is not None for values in grid for value in values):
            continue
        count = number(next(iter(each[0].values())).get("images")) if each[0] else None
        text = [["failed" if value is None else f"{value:.3f}" for value in values] for values in grid]
        filled = [[0.0 if value is None else value for value in values] for values in grid]
        caption = (
            "Area under the probability of the class while an image's pixels, those first that the map ranks highest, "
            "come back to a blurred copy (insertion: higher is better) or are replaced by the mean (deletion: lower is "
            f"better). {f'{count:.0f} unseen images of the class' if count else 'Unseen images'}, {method}, mean over "
            "seeds. A map that does not beat chance, which knows nothing, explains nothing."
        )
        return matrix("Is the map right?", "gates-scores", caption, names, measures, filled, text=text)
    return None


def _with_gates(results: dict[str, Any]) -> Iterator[tuple[str, Told]]:
    """The methods that have gates, with what each seed tells of them."""
    for method in methods_of(results):
        told = [gates for facts in facts_of(results, method) if (gates := mapping(facts.get("gates")))]
        if told:
            yield method, told


def _explained(results: dict[str, Any]) -> Iterator[tuple[str, Told]]:
    for method in methods_of(results):
        told = [found for facts in facts_of(results, method) if (found := mapping(facts.get("explained")))]
        if told:
            yield method, told


def _gone(results: dict[str, Any]) -> list[str]:
    """The names of the forgotten classes, and of all of them together, as gates of the request have it."""
    names = [wording.class_name(results, label) for label in sorted(forgotten(results))]
    return [*names, " and ".join(names)]


def _shown_rows(grid: Sequence[Sequence[float | None]]) -> list[int]:
    """The layers with the largest differences between classes, in their order."""
    known = [[value for value in row if value is not None] for row in grid]
    spread = [max(row) - min(row) if row else -1.0 for row in known]
    return sorted(sorted(range(len(grid)), key=lambda j: -spread[j])[:MOST_ROWS])


def _shown_columns(classes: Sequence[str], gone: Sequence[str]) -> list[int]:
    order = sorted(range(len(classes)), key=lambda c: (classes[c] not in gone, c))
    return sorted(order[:MOST_CLASSES])


def _is_unit(pair: Any) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and number(pair[1]) is not None


def _short(name: str, longest: int) -> str:
    """A layer or a unit of it by the end of its name, which tells it apart."""
    layer, colon, unit = name.partition(":")
    text = f"{layer.removesuffix('.weight')}{colon}{unit}"
    return text if len(text) <= longest else f"…{text[1 - longest :]}"


def _at(values: Sequence[Any], index: int) -> list[Any]:
    return items(values[index]) if index < len(values) else []
