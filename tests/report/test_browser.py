"""The page in a real Chromium: quiet, self-contained, sortable, legible on phone and desk, light and dark."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import NAMES, Browser, find
from PIL import Image

PROGRAM = find()
pytestmark = pytest.mark.skipif(
    PROGRAM is None,
    reason=f"no headless Chromium: none of {', '.join(NAMES)} is installed (apt install chromium)",
)
SCREENS = {"phone": (390, 844, True), "desk": (1280, 900, False)}

# The contrast of every text with what lies behind it: [ratio, tag, text], the lowest first.
CONTRAST = """
(() => {
  const parse = (text) => {
    const n = text.match(/-?[\\d.]+(e-?\\d+)?/g).map(Number);
    const scale = text.startsWith("color(") ? 255 : 1;
    return [...n.slice(0, 3).map((v) => v * scale), n[3] ?? 1];
  };
  const over = (top, below) => top.slice(0, 3).map((v, i) => v * top[3] + below[i] * (1 - top[3]));
  const known = new Map();
  const behind = (e) => {
    if (!e) return [255, 255, 255];
    if (!known.has(e)) {
      known.set(e, over(parse(getComputedStyle(e).backgroundColor), behind(e.parentElement)));
    }
    return known.get(e);
  };
  const light = (rgb) => {
    const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    const [r, g, b] = rgb.map((v) => linear(v / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = [];
  for (const e of document.body.querySelectorAll("*")) {
    if (e.matches("script, style")) continue;
    if (![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())) continue;
    const style = getComputedStyle(e), back = behind(e);
    const ink = e instanceof SVGElement ? style.fill : style.color;
    const a = light(over(parse(ink), back)), b = light(back);
    found.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), e.tagName, e.textContent.slice(0, 30)]);
  }
  return found.sort((x, y) => x[0] - y[0]);
})()
"""
# What sticks out of the screen to the right without a box of its own to scroll in.
OVERFLOW = """
[...document.body.querySelectorAll("*")].filter((e) => {
  if (e.closest(".scroll, .plot .panels, pre, .visually-hidden, svg")) return false;
  return e.getBoundingClientRect().right > innerWidth + 0.5;
}).map((e) => e.tagName + "." + e.className)
"""
FIRST_COLUMN = "[...document.querySelectorAll('tbody:last-child tr > :first-child')].map((e) => e.dataset.value)"
SURFACE = "getComputedStyle(document.querySelector('.scroll')).backgroundColor"
# A place above the text of each row that is seen, just inside the right edge of the table's box.
EDGE = """
[...document.querySelectorAll('.scroll tbody:last-child tr')].map((e) => [
  Math.round(document.querySelector('.scroll').getBoundingClientRect().right) - 4,
  Math.round(e.getBoundingClientRect().top) + 3,
]).filter(([x, y]) => y < innerHeight)
"""
SORTED = "[...document.querySelectorAll('thead th')].map((e) => e.getAttribute('aria-sort'))"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    assert PROGRAM is not None
    running = Browser(PROGRAM, tmp_path_factory.mktemp("profile"))
    yield running
    running.close()


def complaints(browser: Browser) -> list[dict[str, Any]]:
    browser.run("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 20)))")
    kinds = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
    return [event for event in browser.events if event["method"] in kinds]


def requests(browser: Browser) -> set[str]:
    asked = [e["params"]["request"]["url"] for e in browser.events if e["method"] == "Network.requestWillBeSent"]
    return {url for url in asked if not url.startswith("data:")}


@pytest.mark.parametrize(
    ("which", "screen", "scheme"),
    [
        *(("page", screen, scheme) for screen in ("phone", "desk") for scheme in ("light", "dark")),
        *(("hard_page", "phone", "dark"), ("hard_page", "desk", "light")),
        *(("bare_page", "phone", "light"), ("bare_page", "desk", "dark")),
    ],
)
def test_the_page_reads_well(
    browser: Browser, request: pytest.FixtureRequest, which: str, screen: str, scheme: str
) -> None:
    path: Path = request.getfixturevalue(which)
    width, height, mobile = SCREENS[screen]
    browser.open(path.as_uri(), width, height, scheme, mobile)
    assert complaints(browser) == []
    assert requests(browser) == {path.as_uri()}
    assert browser.run("[innerWidth, document.documentElement.scrollWidth]") == [width, width]
    assert browser.run(OVERFLOW) == []
    contrasts = browser.run(CONTRAST)
    assert len(contrasts) > 100
    assert contrasts[0][0] >= 4.5, contrasts[:5]
    light = browser.run("getComputedStyle(document.body).backgroundColor") > "rgb(2"
    assert light == (scheme == "light")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_table_that_is_cut_fades_at_its_edge_until_its_end(
    browser: Browser, page: Path, tmp_path: Path, scheme: str
) -> None:
    browser.open(page.as_uri(), 400, 844, scheme, mobile=True)
    browser.run("document.querySelector('.scroll').scrollIntoView({block: 'start', behavior: 'instant'})")
    surface = tuple(map(int, re.findall(r"\d+", browser.run(SURFACE))))

    def edge(far: int) -> list[tuple[int, ...]]:
        """The colours at the right edge of the table, one in each row, when it is scrolled so far."""
        browser.run(f"document.querySelector('.scroll').scrollLeft = {far}")
        spots = browser.run(EDGE)
        browser.picture(tmp_path / "screen.png")
        with Image.open(tmp_path / "screen.png") as image:
            return [image.convert("RGB").getpixel((x, y)) for x, y in spots]

    assert browser.run("(e => e.scrollWidth - e.clientWidth)(document.querySelector('.scroll'))") > 200
    for far in (0, 100):
        faded = edge(far)
        assert len(faded) > 2
        assert all(abs(sum(surface) - sum(colour)) > 40 for colour in faded)
    assert set(edge(100_000)) == {surface}


@pytest.mark.parametrize("screen", SCREENS)
def test_question_and_verdicts_are_on_the_first_screen(browser: Browser, page: Path, screen: str) -> None:
    width, height, mobile = SCREENS[screen]
    browser.open(page.as_uri(), width, height, "light", mobile)
    for selector in ("h1", ".compared", ".tally li:last-child"):
        bottom = browser.run(f"document.querySelector({selector!r}).getBoundingClientRect().bottom")
        assert 0 < bottom <= height


def test_the_table_sorts_by_click_and_by_key(browser: Browser, page: Path, measured: dict[str, Any]) -> None:
    browser.open(page.as_uri(), 1280, 900, "light")
    methods = [m for m in dict.fromkeys(e["method"] for e in measured["models"]) if m != "retrain"]
    assert browser.run(FIRST_COLUMN) == methods
    assert set(browser.run(SORTED)) == {"none"}

    def mean(method: str) -> float:
        values = [e["measurements"]["ua"]["value"] for e in measured["models"] if e["method"] == method]
        return sum(values) / len(values)

    expected = sorted(methods, key=mean)
    assert expected != methods
    browser.click("thead th:nth-child(3) button")
    assert browser.run(FIRST_COLUMN) == expected
    assert browser.run(SORTED)[:4] == ["none", "none", "ascending", "none"]
    browser.run("document.querySelector('thead th:nth-child(3) button').focus()")
    browser.press_enter()
    assert browser.run(FIRST_COLUMN) == expected[::-1]
    assert browser.run(SORTED)[2] == "descending"
    browser.click("thead th:first-child button")
    assert browser.run(FIRST_COLUMN) == sorted(methods)
    assert browser.run("document.querySelector('.pinned th').dataset.value") == "retrain"
    assert complaints(browser) == []


def test_failed_measurements_sort_to_the_end_both_ways(browser: Browser, page: Path) -> None:
    browser.open(page.as_uri(), 1280, 900, "light")
    column = 1 + browser.run(
        "[...document.querySelectorAll('thead th')].findIndex((e) => e.textContent.includes('Epochs to relearn'))"
    )
    for _ in range(2):
        browser.click(f"thead th:nth-child({column}) button")
        assert browser.run(FIRST_COLUMN)[-1] == "gradient_ascent"


def test_injected_scripts_do_not_run(browser: Browser, page: Path, tmp_path: Path) -> None:
    text = page.read_text(encoding="utf-8")
    changed = tmp_path / "changed.html"
    changed.write_text(text.replace("</main>", "<script>window.injected = 1</script></main>"), encoding="utf-8")
    browser.open(changed.as_uri(), 1280, 900, "light")
    assert browser.run("window.injected === undefined")
    assert complaints(browser) != []  # which also shows that complaints are heard
