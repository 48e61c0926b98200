"""Headless Chromium for tests of pages: what stands where, and what accessibility rules say of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
MEASURE = """
<script>
addEventListener('load', async () => {
  for (const folded of document.querySelectorAll('details')) folded.open = true;
  const box = (element) => { const r = element.getBoundingClientRect(); return [r.width, r.height]; };
  const said = {
    ids: Object.fromEntries([...document.querySelectorAll('[id]')].map((e) => [e.id, box(e)])),
    images: [...document.images].map((i) => i.complete && i.naturalWidth > 0 && i.hasAttribute('alt')),
    wide: document.documentElement.scrollWidth - innerWidth,
    requests: performance.getEntriesByType('resource').map((e) => e.name).filter((n) => !n.includes('axe')),
    paper: getComputedStyle(document.body).backgroundColor,
    violations: null,
  };
  if (window.axe) {
    const found = await axe.run(document, { resultTypes: ['violations'] });
    said.violations = found.violations.map((v) => [v.id, v.nodes.slice(0, 3).map((n) => n.html)]);
  }
  parent.postMessage([name, said], '*');
});
</script>
"""
FRAMES = """<!doctype html><meta charset="utf-8"><body><pre id="said"></pre><script>
const said = {};
addEventListener('message', (event) => {
  said[event.data[0]] = event.data[1];
  document.getElementById('said').textContent = encodeURIComponent(JSON.stringify(said));
});
</script>%s</body>"""


def chromium() -> str:
    """The browser; without one the test is skipped, and says what installs it."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("NOT TESTED: no Chromium here; `make system-packages` installs it")
    return found


def axe() -> Path | None:
    """axe-core's `axe.min.js`, named by the environment variable AXE; None: not named."""
    place = os.environ.get("AXE")
    return Path(place).resolve(strict=True) if place else None


def run(scratch: Path, *arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """One run of the browser with a profile of its own and no background traffic; stderr has the page's console."""
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    flags += ["--disable-component-update", "--enable-logging=stderr", "--virtual-time-budget=30000"]
    command = [chromium(), *flags, f"--user-data-dir={scratch / 'profile'}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=True)


def measure(page: Path, scratch: Path, *, views: dict[str, tuple[int, str]]) -> dict[str, dict[str, Any]]:
    """What a copy of the page, whose policy is lifted so that it can be asked, says of itself.

    Args:
        page: the file.
        scratch: an empty folder.
        views: name -> (width in pixels, theme: "light" or "dark").

    Returns:
        name -> ids with their [width, height], images, pixels beyond the width, requests, violations (None: no axe).
    """
    text = POLICY.sub("", page.read_text(encoding="utf-8"))
    script = axe()
    extra = (f'<script src="{script.as_uri()}"></script>' if script else "") + MEASURE
    frames = []
    for name, (width, theme) in views.items():
        themed = text.replace('id="theme-auto" checked', 'id="theme-auto"')
        themed = themed.replace(f'id="theme-{theme}"', f'id="theme-{theme}" checked')
        (scratch / f"{name}.html").write_text(themed.replace("</body>", extra + "</body>"), encoding="utf-8")
        frames.append(
            f'<iframe name="{name}" src="{name}.html" style="width:{width}px;height:900px;border:0"></iframe>'
        )
    (scratch / "frames.html").write_text(FRAMES % "".join(frames), encoding="utf-8")
    done = run(scratch, "--window-size=1600,1000", "--dump-dom", (scratch / "frames.html").as_uri())
    found = re.search(r'<pre id="said">([^<]+)</pre>', done.stdout)
    assert found, done.stderr[-2000:]
    said: dict[str, dict[str, Any]] = json.loads(unquote(found.group(1)))
    assert set(said) == set(views)
    return said
