"""`tipr import`: a checkpoint becomes a model that searches; what is missing is named; a download is checked."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoint_samples import SAMPLES, argument

from tipr.cli import main
from tipr.encoders.clip_tokenizer import byte_symbols
from tipr.errors import WeightsError
from tipr.importers import official
from tipr.importers.official import OfficialFile, fetch
from tipr.retrieval import Retriever

pytestmark = pytest.mark.usefixtures("foreign_files_read_here")


def merge_list(path: Path, tokens: int) -> Path:
    """A merge list that gives a vocabulary of this size: 512 byte symbols, the merges but one, three special tokens."""
    letters = sorted(byte_symbols().values())
    pairs = [f"{one} {two}" for one in letters for two in letters][: tokens - 512 - 3 + 1]
    path.write_text("\n".join(["#version: 0.2", *pairs]) + "\n", encoding="utf-8")
    return path


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(each) for each in arguments])
    return int(stop.value.code or 0)


def test_an_imported_model_encodes_and_is_verified(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = SAMPLES["openai_clip"](tmp_path)
    content = torch.load(file, weights_only=True)
    content["token_embedding.weight"] = torch.randn(600, content["token_embedding.weight"].shape[1])
    torch.save(content, file)
    vocabulary = merge_list(tmp_path / "merges.txt", 600)
    assert run("import", "openai_clip", file, tmp_path / "model", "--vocabulary", vocabulary, "--verify", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    model = Retriever.load(tmp_path / "model")
    assert facts["verified"] == len(model.encoder.state_dict())
    assert facts["fingerprint"] == model.fingerprint
    assert model.card["imported"]["format"] == "openai_clip"
    assert np.linalg.norm(model.encode_text(["a man"])) == pytest.approx(1, abs=1e-4)
    capsys.readouterr()
    again = ("import", "openai_clip", file, tmp_path / "wide", "--vocabulary", vocabulary, "--image-size", "64x64")
    assert run(*again) == 0
    assert "people are taller than wide" in capsys.readouterr().out
    assert Retriever.load(tmp_path / "wide").preprocessing.image_size == (64, 64)


def test_a_folder_brings_its_own_vocabulary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = argument("huggingface_clip", SAMPLES["huggingface_clip"](tmp_path))
    merge_list(folder / "merges.txt", 600)
    assert run("import", "huggingface_clip", folder, tmp_path / "model") == 1
    assert "has 600 tokens, the model 300: it is another model" in capsys.readouterr().err
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("clap", "x.pt", "out"), 2, "unknown FORMAT 'clap': use one of "),
        (("openai_clip", "ViT-B-16.pt", "out"), 1, "get ViT-B-16.pt from https://"),
        (("openai_clip", "ViT-L-14.pt", "out"), 1, "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836"),
        (("irra", "best.pth", "out", "--download"), 1, "has no address to download from: get it from https://"),
        (("openai_clip", "here.pt", "out", "--image-size", "384"), 2, "is not of the form HEIGHTxWIDTH"),
    ],
)
@pytest.mark.usefixtures("inside")
def test_what_is_wrong_is_said_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], *, arguments: tuple[str, ...], code: int, message: str
) -> None:
    Path("here.pt").write_bytes(b"")
    merge_list(tmp_path / official.CLIP_VOCABULARY.name, 600)
    assert run("import", *arguments) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not Path("out").exists()


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


DATA = np.random.default_rng(0).bytes(300_000)


class Server(http.server.BaseHTTPRequestHandler):
    """Gives `DATA`; breaks off where its class is told to; knows ranges unless told not to."""

    stop_after: int | None = None
    ranges = True
    asked: list[str | None]

    def do_GET(self) -> None:
        start = 0
        asked = self.headers.get("Range")
        type(self).asked.append(asked)
        if self.path != "/weights.pt":
            self.send_error(404)
            return
        if asked and self.ranges:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(DATA):
                self.send_error(416)
                return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(DATA) - start))
        self.end_headers()
        end = len(DATA) if self.stop_after is None else self.stop_after
        self.wfile.write(DATA[start:end])

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[tuple[type[Server], str]]:
    kind = type("OneServer", (Server,), {"asked": []})
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind)
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    yield kind, f"http://127.0.0.1:{made.server_port}/weights.pt"
    made.shutdown()
    made.server_close()
    thread.join()


def offered(url: str, *, sha256: str | None = hashlib.sha256(DATA).hexdigest()) -> OfficialFile:
    return OfficialFile("weights.pt", "https://example.org", url, sha256)


@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_that_broke_off_goes_on(tmp_path: Path, server: tuple[type[Server], str], ranges: bool) -> None:
    kind, url = server
    kind.ranges, kind.stop_after = ranges, 100_000
    path = tmp_path / "weights.pt"
    with pytest.raises(WeightsError, match="the same command goes on"):
        fetch(offered(url), path)
    assert not path.exists()
    kind.stop_after = None
    seen: list[tuple[int, int]] = []
    digest = fetch(offered(url), path, progress=lambda done, total: seen.append((done, total)))
    assert (path.read_bytes(), digest) == (DATA, hashlib.sha256(DATA).hexdigest())
    assert kind.asked == [None, "bytes=100000-"]
    assert seen[-1] == (len(DATA), len(DATA))
    assert [each.name for each in tmp_path.iterdir()] == ["weights.pt"]


def test_a_whole_part_is_only_checked(tmp_path: Path, server: tuple[type[Server], str]) -> None:
    (tmp_path / "weights.pt.part").write_bytes(DATA)
    fetch(offered(server[1]), tmp_path / "weights.pt")
    assert (tmp_path / "weights.pt").read_bytes() == DATA


def test_another_digest_is_thrown_away(tmp_path: Path, server: tuple[type[Server], str]) -> None:
    with pytest.raises(WeightsError, match=r"not 0{64}: thrown away"):
        fetch(offered(server[1], sha256="0" * 64), tmp_path / "weights.pt")
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_says_no_or_is_not_there(tmp_path: Path, server: tuple[type[Server], str]) -> None:
    with pytest.raises(WeightsError, match="answers 404"):
        fetch(offered(server[1] + "x"), tmp_path / "weights.pt")
    with pytest.raises(WeightsError, match=r"cannot download .* on another machine and put it at .*weights.pt"):
        fetch(offered("http://127.0.0.1:9/weights.pt"), tmp_path / "weights.pt")


def test_nothing_is_fetched_unless_asked_for(
    tmp_path: Path, server: tuple[type[Server], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, url = server
    monkeypatch.setitem(official.OFFICIAL, "openai_clip", (offered(url),))
    merge_list(tmp_path / official.CLIP_VOCABULARY.name, 600)
    assert run("import", "openai_clip", tmp_path / "weights.pt", tmp_path / "out", "--quiet") == 1
    assert kind.asked == []
    assert run("import", "openai_clip", tmp_path / "weights.pt", tmp_path / "out", "--quiet", "--download") == 1
    assert kind.asked == [None]  # fetched; it is no checkpoint
    assert (tmp_path / "weights.pt").is_file()
