"""`tipr translate` against faults and kills: every caption exactly once in every language, hardly a request twice."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from chat_server import CODES, ChatServer, good

from tipr.data.datasets import DATASETS

LANGUAGES = tuple(CODES.values())
SCRIPTS: dict[int, tuple[str, ...]] = {
    3: ("429",),
    10: ("500", "500"),
    17: ("hang",),
    24: ("half",),
    31: ("wrong_language",),
    38: ("empty",),
    45: ("cut",),
    52: ("429", "empty"),
}
"""Faults of a (caption, language), by its number modulo `CYCLE`."""
CYCLE = 150


def script(caption: str, language: str) -> Sequence[str]:
    number = int(caption.split()[1]) * len(LANGUAGES) + LANGUAGES.index(language)
    return SCRIPTS.get(number % CYCLE, ())


def expected(caption: str, language: str) -> str:
    last = (script(caption, language) or ("",))[-1]
    return {"wrong_language": caption, "empty": ""}.get(last, good(caption, language))


def write_data(folder: Path, captions: int) -> list[str]:
    """A manifest of two captions an image, with a file of no content for each image."""
    (folder / "images").mkdir(parents=True)
    texts = [f"Person {number} wears a red coat." for number in range(captions)]
    lines = []
    for first in range(0, captions, 2):
        image = f"images/{first:04}.png"
        (folder / image).touch()
        pair = [{"language": "en", "text": text} for text in texts[first : first + 2]]
        lines.append(json.dumps({"image": image, "captions": pair, "identity": first, "split": "test"}))
    (folder / "manifest.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return texts


def command_line(data: Path, out: Path) -> list[str]:
    command = [sys.executable, "-m", "tipr", "translate", str(data), str(out), "--to", *LANGUAGES]
    return [*command, "--stage", "translate", "--model", "m", "--yes", "--quiet", "--timeout", "1.2"]


def environment(server: ChatServer) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    return {**kept, "TIPR_TRANSLATE_URL": server.url}


def kill_until_done(data: Path, out: Path, server: ChatServer, *, kills: int, spacing: int, seed: int) -> None:
    """Run the command, killed at a random moment after a random number of requests, and once more to the end."""
    chance = random.Random(seed)
    for _ in range(kills):
        reached = threading.Event()
        goal = server.total + chance.randint(0, spacing)
        server.on_request = lambda count, goal=goal, reached=reached: count >= goal and reached.set()
        process = subprocess.Popen(command_line(data, out), env=environment(server), stdout=subprocess.DEVNULL)
        if goal == server.total:
            time.sleep(chance.uniform(0.0, 0.3))  # while it starts
        else:
            assert reached.wait(60)
            time.sleep(chance.uniform(0.0, 0.02))  # anywhere between a request and the line of its answer
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it was done before it was killed"
    server.on_request = lambda count: None
    subprocess.run(command_line(data, out), env=environment(server), stdout=subprocess.DEVNULL, check=True)


@pytest.mark.parametrize(
    ("captions", "kills", "spacing", "share"),
    [pytest.param(60, 3, 50, 1.25, id="short"), pytest.param(500, 20, 70, 1.1, id="long", marks=pytest.mark.slow)],
)
def test_every_caption_once_through_faults_and_kills(
    tmp_path: Path, captions: int, kills: int, spacing: int, share: float
) -> None:
    texts = write_data(tmp_path / "data", captions)
    out = tmp_path / "out"
    with ChatServer(script, delay=0.005) as server:
        kill_until_done(tmp_path / "data", out, server, kills=kills, spacing=spacing, seed=captions)
        least = captions * len(LANGUAGES) + sum(
            len([fault for fault in script(text, language) if fault not in ("wrong_language", "empty")])
            for text in texts
            for language in LANGUAGES
        )
        said = f"{server.total} requests for {captions * len(LANGUAGES)} captions, {least} with the faults"
        assert server.total <= 1.1 * least, said
        assert server.total <= share * captions * len(LANGUAGES), said
        done = server.total
        kill_until_done(tmp_path / "data", out, server, kills=0, spacing=0, seed=0)
        assert server.total == done, "a finished stage asks for nothing"
    rows = [json.loads(line) for line in (out / "translations.jsonl").read_text(encoding="utf-8").splitlines()]
    assert Counter(row["language"] for row in rows) == dict.fromkeys(LANGUAGES, captions)
    assert len({row["key"] for row in rows}) == captions * len(LANGUAGES)
    assert {(row["source"], row["language"]): row["draft"] for row in rows} == {
        (text, language): expected(text, language) for text in texts for language in LANGUAGES
    }
    assert all(row["error"] is None and row["provenance"]["model"] == "m" for row in rows)
    split = DATASETS["manifest"].load(out, "test")
    assert split.languages() == ("en", *LANGUAGES)
    assert Counter(sample.language for sample in split.samples) == dict.fromkeys(("en", *LANGUAGES), captions)


def test_ctrl_c_says_how_to_go_on(tmp_path: Path) -> None:
    write_data(tmp_path / "data", 20)
    reached = threading.Event()
    with ChatServer(delay=0.05) as server:
        server.on_request = lambda count: count >= 10 and reached.set()
        process = subprocess.Popen(
            command_line(tmp_path / "data", tmp_path / "out"),
            env=environment(server),
            stderr=subprocess.PIPE,
            text=True,
        )
        assert reached.wait(60)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
        assert process.returncode == 130
        assert "stopped; continue with:  tipr translate " in said
        assert "Traceback" not in said
        before = server.total
        assert 6 <= len((tmp_path / "out" / "translations.jsonl").read_text(encoding="utf-8").splitlines()) < 60
        kill_until_done(tmp_path / "data", tmp_path / "out", server, kills=0, spacing=0, seed=0)
        assert before < server.total <= 60 + 4
