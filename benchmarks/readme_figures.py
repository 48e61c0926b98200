"""Fill the figures of the README and of the documentation from the committed result files, or check them.

    python benchmarks/readme_figures.py            write the figures
    python benchmarks/readme_figures.py --check    exit 1 when one differs from its file

A figure stands between invisible marks: <!--fig FILE#KEY.KEY:FORMAT-->60.1<!--/fig-->, where FILE is a file of
`benchmarks/results/`, or of `benchmarks/` where it names a folder, KEY.KEY leads to a number in it (a key that holds a
dot is not supported), and FORMAT is a Python number format.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGES = (
    "README.md",
    "README.zh.md",
    "docs/doctor.md",
    "docs/evaluation.md",
    "docs/indexing.md",
    "docs/privacy.md",
    "docs/search.md",
    "docs/methods/bi_irra.md",
    "docs/methods/irra.md",
    "docs/methods/dual_granularity.md",
)
FIGURE = re.compile(r"<!--fig (?P<file>[\w./-]+)#(?P<keys>[^:>]+):(?P<format>[^>]+?)-->(?P<shown>.*?)<!--/fig-->")


def figure(file: str, keys: str, style: str) -> str:
    """The text of one figure.

    Raises:
        KeyError: the file has no such key.
        FileNotFoundError: no such result file.
    """
    folder = ROOT / "benchmarks" if "/" in file else ROOT / "benchmarks" / "results"
    value: Any = json.loads((folder / file).read_text(encoding="utf-8"))
    for key in keys.split("."):
        value = value[int(key)] if isinstance(value, list) else value[key]
    return format(value, style)


def filled(text: str) -> str:
    """The text with every figure taken from its file."""

    def replace(found: re.Match[str]) -> str:
        shown = figure(found["file"], found["keys"], found["format"])
        return f"<!--fig {found['file']}#{found['keys']}:{found['format']}-->{shown}<!--/fig-->"

    return FIGURE.sub(replace, text)


def main() -> int:
    """Write or check; the exit code."""
    check = "--check" in sys.argv[1:]
    wrong = 0
    for name in PAGES:
        path = ROOT / name
        text = path.read_text(encoding="utf-8")
        new = filled(text)
        if new != text:
            wrong += 1
            if check:
                print(f"{name}: figures differ from their files; run python benchmarks/readme_figures.py")
            else:
                path.write_text(new, encoding="utf-8")
                print(f"{name}: figures written")
    return 1 if check and wrong else 0


if __name__ == "__main__":
    sys.exit(main())
