"""The report's page, in a real browser: it draws, in both themes, and asks nobody for anything."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from lightwork import Pool
from tests.observe import tasks
from tests.observe.browser import Browser, missing

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(missing() is not None, reason=missing() or ""),
]

COUNTS = (10, 100_000)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    folder = tmp_path_factory.mktemp("pages")
    found = {}
    for count in COUNTS:
        with Pool("threads", 3, trace=True, name=f"run <b>{count}</b>") as pool:
            results = pool.map(tasks.fail_at_seven, range(count), on_error="return", chunksize=100)
            assert len(list(results)) == count
        found[count] = folder / f"{count}.html"
        pool.report().to_html(found[count])
    return found


CONTRAST = """
// The smallest contrast (WCAG 2.2, 1.4.3) of any text to what is behind it.
const lum = c => { const [r, g, b] = c.map(v => { v /= 255;
  return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
const rgb = text => text.match(/[\\d.]+/g).map(Number);
let worst = [99, ""];
for (const e of document.querySelectorAll("body *")) {
  const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
  if (!own || getComputedStyle(e).visibility === "hidden") continue;
  if (["SCRIPT", "STYLE"].includes(e.tagName)) continue;
  let behind = e, back;
  do { back = rgb(getComputedStyle(behind).backgroundColor); behind = behind.parentElement; }
  while (back.length === 4 && back[3] === 0 && behind);
  const style = getComputedStyle(e);
  const front = rgb(e.namespaceURI.endsWith("svg") ? style.fill : style.color);
  const [a, b] = [lum(front.slice(0, 3)), lum(back.slice(0, 3))].sort((x, y) => y - x);
  const found = (a + 0.05) / (b + 0.05);
  if (found < worst[0]) worst = [found, e.tagName + ": " + e.textContent.trim().slice(0, 40)];
}
return worst;
"""

COLORS = """
// How many pixels of a canvas have something on them, and of how many colors.
const c = document.getElementById(arguments[0]), seen = new Set();
const data = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
let inked = 0;
for (let i = 0; i < data.length; i += 4)
  if (data[i + 3] > 200) { inked++; seen.add(data[i] << 16 | data[i + 1] << 8 | data[i + 2]); }
return [inked, seen.size, c.width * c.height];
"""


@pytest.mark.parametrize("dark", (False, True), ids=("light", "dark"))
@pytest.mark.parametrize("count", COUNTS)
def test_it_draws(count: int, dark: bool, pages: dict[int, Path]) -> None:
    with Browser(dark=dark) as browser:
        browser.open(pages[count])
        assert browser.run("return document.documentElement.dataset.drawn") == "yes"
        assert not browser.errors()
        # Nothing was asked for, from anywhere.
        assert browser.run("return performance.getEntriesByType('resource').length") == 0
        assert browser.run("return document.querySelector('h1').textContent") == (
            f"run <b>{count}</b>"
        )
        text = browser.run("return document.body.innerText")
        assert f"{count:,} calls" in text
        assert "tasks.fail_at_seven" in text or "fail_at_seven" in text
        inked, colors, size = browser.run(COLORS, "timeline")
        assert colors > 3
        assert size > inked > size / 10
        # The theme is the user's, and the button changes it.
        background = browser.run("return getComputedStyle(document.body).backgroundColor")
        brightness = sum(map(int, re.findall(r"\d+", background)[:3])) / 3
        assert (brightness < 64) == dark
        assert brightness < 64 or brightness > 192
        contrast, where = browser.run(CONTRAST)
        assert contrast >= 4.5, where
        browser.run("document.getElementById('theme').click()")
        contrast, where = browser.run(CONTRAST)
        assert contrast >= 4.5, where
        other = browser.run("return getComputedStyle(document.body).backgroundColor")
        assert other != background
        assert browser.run(COLORS, "timeline")[1] > 3
        assert not browser.errors()


def test_it_can_be_used_without_a_mouse_or_eyes(pages: dict[int, Path]) -> None:
    with Browser(dark=False) as browser:
        browser.open(pages[10])
        facts: dict[str, Any] = browser.run(
            """return {
              lang: document.documentElement.lang,
              tables: [...document.querySelectorAll('table')].map(t =>
                [!!t.caption && t.caption.textContent !== '',
                 t.querySelectorAll('th:not([scope])').length]),
              pictures: [...document.querySelectorAll('canvas, svg, .bar')].map(p =>
                [p.getAttribute('role'), (p.getAttribute('aria-label') || '').length > 5]),
              buttons: [...document.querySelectorAll('button')].map(b =>
                (b.getAttribute('aria-label') || b.textContent).trim().length),
              unnamed: [...document.querySelectorAll('section')].filter(s =>
                !document.getElementById(s.getAttribute('aria-labelledby'))).length,
              wide: document.documentElement.scrollWidth > innerWidth }"""
        )
        assert facts["lang"] == "en"
        assert facts["tables"]
        assert all(named and not without for named, without in facts["tables"])
        assert all(role == "img" and named for role, named in facts["pictures"])
        assert all(facts["buttons"])
        assert facts["unnamed"] == 0
        assert not facts["wide"]
        # The keys move and zoom the timeline.
        press = """
          const c = document.getElementById('timeline'); c.focus();
          c.dispatchEvent(new KeyboardEvent('keydown', {key: arguments[0], bubbles: true}));
          draw(); return [from, to, END, document.activeElement === c]"""
        begin, end, whole, focused = browser.run(press, "+")
        assert focused
        assert end - begin < whole
        moved, *_ = browser.run(press, "ArrowRight")
        assert moved > begin
        assert browser.run(press, "Home")[:2] == [0, whole]
        # Pointing at a bar tells about it.
        tip = browser.run(
            """const c = document.getElementById('timeline'), box = c.getBoundingClientRect();
            const row = rows.findIndex(r => r.n);
            const at = (rows[row].starts[0] + rows[row].stops[0]) / 2;
            c.dispatchEvent(new PointerEvent('pointermove', {bubbles: true,
              clientX: box.left + LABEL + (at - from) / (to - from) * (box.width - LABEL),
              clientY: box.top + AXIS + row * (ROW + 4) + ROW / 2}));
            return [getComputedStyle(document.getElementById('tip')).visibility,
                    document.getElementById('tip').textContent]"""
        )
        assert tip[0] == "visible"
        assert re.match(r"fail_at_seven, index \d+", tip[1])
