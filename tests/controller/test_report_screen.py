"""The page as a browser shows it: every label whole, none over another, at any width, light and dark."""

import json
import re
import shutil
import subprocess
import time
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from escra_controller.report.fetch import gather
from escra_controller.report.page import page
from tests.controller.recorded import asking, recorded
from tests.controller.test_report import NOW, fleet, instants
from tests.needs import unavailable

# In the page, after it was laid out: what is cut off, what overlaps, and whether it is wider than the window.
MEASURE = """
<script>
addEventListener("load", () => {
  const found = [], box = (e) => e.getBoundingClientRect();
  for (const svg of document.querySelectorAll("svg.chart")) {
    const outer = box(svg), texts = [...svg.querySelectorAll("text")];
    for (const t of texts) {
      const b = box(t);
      const across = b.left < outer.left - 1 || b.right > outer.right + 1;
      if (across || b.bottom > outer.bottom + 1 || b.top < outer.top - 3)
        found.push(["cut off", svg.getAttribute("aria-label"), t.textContent]);
      for (const o of texts) {
        const c = box(o);
        const beside = b.left < c.right - 1 && c.left < b.right - 1;
        if (o !== t && beside && b.top < c.bottom - 4 && c.top < b.bottom - 4)
          found.push(["overlap", svg.getAttribute("aria-label"), t.textContent, o.textContent]);
      }
    }
  }
  for (const e of document.querySelectorAll(".tile b, .tile span, .key, h2, .headline"))
    if (e.scrollWidth > e.parentElement.clientWidth + 1) found.push(["too wide", e.textContent]);
  const rows = {};
  for (const tile of document.querySelectorAll(".tile")) rows[box(tile).top] = (rows[box(tile).top] || 0) + 1;
  const beyond = [...document.querySelectorAll(".wide")].map((e) => e.scrollWidth - e.clientWidth);
  const root = document.documentElement;
  const report = {found, width: root.scrollWidth, window: innerWidth, height: root.scrollHeight,
    tiles: Object.values(rows), beyond: Math.max(...beyond),
    background: getComputedStyle(document.body).backgroundColor,
    charts: document.querySelectorAll("svg.chart").length};
  document.title = "measured " + JSON.stringify(report);
});
</script>
"""


@pytest.fixture(scope="module")
def browser() -> str:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    return found or unavailable("browser", "no chromium is installed: apt-get install chromium")


def shown(browser: str, directory: Path, html: str, *, width: int, dark: bool = False) -> dict[str, Any]:
    """What the browser measured."""
    # The page itself allows no script at all.
    html = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", html)
    (directory / "page.html").write_text(html.replace("</body>", MEASURE + "</body>"))
    done = subprocess.run(
        [
            *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--dump-dom"),
            *(f"--user-data-dir={directory / 'profile'}", f"--window-size={width},900"),
            f"--blink-settings=preferredColorScheme={0 if dark else 1}",
            f"file://{directory / 'page.html'}",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    title = re.search(r"<title>measured (.*?)</title>", done.stdout)
    assert title, done.stdout[:500] + done.stderr[-500:]
    measured: dict[str, Any] = json.loads(unescape(title[1]))
    return measured


@pytest.mark.parametrize(
    ("containers", "seconds", "width", "dark"),
    [(1, 60, 1280, False), (100, 1200, 1280, True), (3, 60, 500, False)],
)
def test_nothing_is_cut_off_or_covered(
    browser: str, tmp_path: Path, containers: int, seconds: int, width: int, dark: bool
) -> None:
    makers = [*fleet(-(-containers // 2)), *fleet(containers, observed=True)[-(-containers // 2) :]]
    path = recorded(tmp_path, instants(seconds, *makers))
    apps = gather(asking(path), None, NOW - seconds, NOW, time.time())
    measured = shown(browser, tmp_path, page(apps, NOW, "1"), width=width, dark=dark)
    assert measured["found"] == []
    assert measured["width"] == measured["window"]
    assert len(set(measured["tiles"])) == 1, "one of them stands alone in its row"
    assert measured["background"] == ("rgb(15, 20, 25)" if dark else "rgb(255, 255, 255)")
    # Three of the application, two of each that moved.
    assert measured["charts"] == 3 + 2 * min(containers, 6)


def test_nothing_is_cut_off_on_paper(browser: str, tmp_path: Path) -> None:
    """Nobody can scroll a table there.  Letter and A4 leave about 720 pixels."""
    path = recorded(tmp_path, instants(60, *fleet(1, observed=True)))
    apps = gather(asking(path), None, NOW - 60, NOW, time.time())
    html = page(apps, NOW, "1").replace("@media print{", "@media all{")
    measured = shown(browser, tmp_path, html, width=720)
    assert measured["found"] == []
    assert measured["beyond"] <= 0
    assert measured["charts"] == 5
