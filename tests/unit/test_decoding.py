"""The processes that open pictures: what they may do, how they are stopped, and that their pixels are the same."""

from __future__ import annotations

import io
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from bad_files import corpus, forms, person
from colour_model import ColourModel, paint
from PIL import Image

from tipr.data import decoding
from tipr.data.decode_worker import ALIGNED, BESIDE
from tipr.data.decoding import FILES, SPARE, Decoded, Decoder, Decoders
from tipr.data.images import ImageProblem, Preprocessing, read_image, resize
from tipr.gallery import Gallery


@pytest.fixture
def decoder() -> Iterator[Decoder]:
    made = Decoder()
    yield made
    made.close()


def refused(decoder: Decoder, path: Path | str) -> str:
    with pytest.raises(ImageProblem) as caught:
        decoder.read(str(path))
    return caught.value.reason


def test_pixels_are_those_of_reading_here(decoder: Decoder, tmp_path: Path) -> None:
    for name, data in forms().items():
        (tmp_path / name).write_bytes(data)
        decoded = decoder.read(str(tmp_path / name))
        assert decoded.pixels is not None
        np.testing.assert_array_equal(decoded.pixels, np.asarray(read_image(tmp_path / name)), err_msg=name)
        assert decoder.read(str(tmp_path / name), [decoded.sha256]).pixels is None


def test_files_are_read_some_at_once(decoder: Decoder, tmp_path: Path) -> None:
    files = [str(tmp_path / f"{seed}.bmp") for seed in range(5)]
    for seed, file in enumerate(files):
        person(seed, (1000, 1500)).save(file)  # 4.5 MB of pixels: one fills the spare room
    small = [str(paint(tmp_path / f"small {seed}.png", seed=seed)) for seed in range(4)]
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    left = [*small, str(tmp_path / "bad.jpg"), *files, *small]
    sizes, reasons = [], []
    while left:
        found = decoder.read_some([(file, ()) for file in left])
        for file, each in zip(left, found, strict=False):
            if isinstance(each, ImageProblem):
                reasons.append((file, each.reason))
            else:
                assert each.pixels is not None
                np.testing.assert_array_equal(each.pixels, np.asarray(read_image(file)), err_msg=file)
                assert each.pixels.ctypes.data % ALIGNED == BESIDE
        sizes.append(len(found))
        left = left[len(found) :]
    assert sizes == [6, 1, 1, 1, 1, 4]
    assert reasons == [(str(tmp_path / "bad.jpg"), "not an image")]
    assert SPARE < 1000 * 1500 * 3


def test_a_file_that_stops_its_process_is_blamed_alone(tmp_path: Path) -> None:
    large, good = str(tmp_path / "large.png"), [str(paint(tmp_path / f"{seed}.png", seed=seed)) for seed in range(4)]
    Image.new("RGB", (4000, 4000), "red").save(large, compress_level=1)
    pool = Decoders(1, seconds=0.05)
    found = list(pool.read([(file, ()) for file in (*good[:3], large, good[3], large)]))
    pool.close()
    assert [getattr(each, "reason", None) for each in found] == [None, None, None, "too slow", None, "too slow"]
    assert [each.path for each in found if isinstance(each, ImageProblem)] == [large, large]


def test_a_file_that_is_waited_for_in_vain_is_blamed_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code = """
import json, mmap, sys, time
room = mmap.mmap(int(sys.argv[1]), int(sys.argv[2]))
print('{"ready": true}', flush=True)
for line in sys.stdin:
    files = json.loads(line)["files"]
    if len(files) > 2:
        room[-8:] = (2).to_bytes(8, "little")
        time.sleep(60)
    print(json.dumps({"files": [{"sha256": "0" * 64}] * len(files)}), flush=True)
"""
    monkeypatch.setattr(decoding, "_START_CODE", code)
    decoder = Decoder(patience=1)
    found = decoder.read_some([(str(tmp_path / str(number)), ()) for number in range(FILES)])
    decoder.close()
    assert [getattr(each, "reason", None) for each in found] == [None, None, "too slow"]


def test_a_person_is_decoded_and_shrunk_as_for_evaluation(decoder: Decoder, tmp_path: Path) -> None:
    for seed in range(3):
        file = tmp_path / f"{seed}.jpg"
        file.write_bytes(simplejpeg.encode_jpeg(np.array(person(seed, (192, 512))), colorsubsampling="420"))
        decoded = decoder.read(str(file))
        assert decoded.pixels is not None
        expected = Preprocessing((384, 128)).pixels([file])[0].permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(resize(decoded.pixels, (384, 128)), expected)


def test_the_child_is_small_and_confined(decoder: Decoder, tmp_path: Path) -> None:
    decoder.read(str(paint(tmp_path / "a.png")))
    status = Path(f"/proc/{decoder.pid}/status").read_text()
    facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert int(facts["VmRSS"].split()[0]) < 120 << 10  # KiB
    if sys.platform == "linux" and os.uname().machine in ("x86_64", "aarch64"):
        assert facts["Seccomp"].strip() == "2"
    code = (
        "import sys, tipr.data.decode_worker; print(sorted({'torch', 'lancedb', 'pyarrow', 'rich'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_without_a_filter_the_limits_stay_and_it_is_said_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    start = "import tipr.confinement as c; c.ARCHITECTURES.clear(); " + decoding._START_CODE.partition("; ")[2]
    monkeypatch.setattr(decoding, "_START_CODE", "import sys; sys.path.insert(0, sys.argv[-1]); " + start)
    monkeypatch.setattr(decoding, "_told", set())
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            decoder = Decoder(memory=64 << 20)
            decoder.read(str(paint(tmp_path / "a.png")))
            limits = Path(f"/proc/{decoder.pid}/limits").read_text()
            decoder.close()
    assert [record.message.count("no system-call filter") for record in caplog.records] == [1]
    (line,) = [line for line in limits.splitlines() if line.startswith("Max address space")]
    assert "unlimited" not in line


def test_a_child_that_hangs_or_dies_costs_one_file(tmp_path: Path) -> None:
    good = str(paint(tmp_path / "good.png"))
    decoder = Decoder(patience=0.5)
    try:
        decoder.read(good)
        os.kill(decoder.pid or 0, signal.SIGSTOP)
        assert refused(decoder, good) == "too slow"
        decoder._patience = 60.0
        assert decoder.read(good).pixels is not None
        child = decoder.pid or 0
        os.kill(child, signal.SIGSTOP)
        timer = threading.Timer(0.3, lambda: os.kill(child, signal.SIGKILL))
        timer.start()  # dies while it has the file
        assert refused(decoder, good) == "breaks the decoder"
        timer.join()
        assert decoder.read(good).pixels is not None
        os.kill(decoder.pid or 0, signal.SIGKILL)  # dies between two files: neither is to blame
        time.sleep(0.5)
        assert decoder.read(good).pixels is not None
    finally:
        decoder.close()


def test_time_memory_and_pixels_are_limited(tmp_path: Path) -> None:
    large, good = tmp_path / "large.png", str(paint(tmp_path / "good.png"))
    Image.new("RGB", (4000, 4000), "red").save(large, compress_level=1)
    for limits, reason in (
        ({"seconds": 0.02}, "too slow"),
        ({"memory": 24 << 20}, "too large"),
        ({"max_pixels": 15_999_999}, "too large"),
    ):
        decoder = Decoder(**limits)
        assert refused(decoder, large) == reason
        if "seconds" not in limits:
            assert decoder.read(good).pixels is not None
        decoder.close()


@pytest.mark.parametrize(
    "answer",
    [
        "[]",
        "no json",
        "{}",
        '{"files": []}',
        '{"files": [7]}',
        '{"files": [{"reason": "nonsense"}]}',
        '{"files": [{"reason": "missing"}, {"reason": "missing"}]}',
        '{"sha256": "x"}',
        '{"sha256": "' + "0" * 64 + '", "height": 99999999, "width": 99999999, "start": 0, "taken": null}',
        '{"sha256": "' + "0" * 64 + '", "height": 0, "width": 4, "start": 0, "taken": null}',
        '{"sha256": "' + "0" * 64 + '", "height": 4, "width": 4, "start": -48, "taken": null}',
        '{"sha256": "' + "0" * 64 + '", "height": 4, "width": 4, "start": 154194304, "taken": null}',
        '{"sha256": "' + "0" * 64 + '", "height": 4, "width": 4, "start": 0, "taken": "noon"}',
    ],
)
def test_a_child_that_was_taken_over_is_not_believed(
    answer: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    answered = answer if "sha256" not in answer else f'{{"files": [{answer}]}}'
    lines = (
        f"import sys; print('{{\"ready\": true}}', flush=True); sys.stdin.readline(); print({answered!r}, flush=True)"
    )
    monkeypatch.setattr(decoding, "_START_CODE", lines + "; sys.stdin.readline()")
    decoder = Decoder(patience=30)
    assert refused(decoder, paint(tmp_path / "a.png")) == "breaks the decoder"
    assert decoder.pid is None


def test_the_parent_opens_none_of_the_files(tmp_path: Path) -> None:
    opened: list[str] = []
    watching = True

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if watching and event == "open" and str(tmp_path / "p") in str(arguments[0]):
            opened.append(str(arguments[0]))

    (tmp_path / "p").mkdir()
    for odd in corpus()[::25]:
        odd.make(tmp_path / "p" / odd.name)
    paint(tmp_path / "p" / "good.png")
    model: Any = ColourModel()
    sys.addaudithook(watch)
    try:
        assert Gallery.create(tmp_path / "g", model).add([tmp_path / "p"]).added
    finally:
        watching = False  # a hook cannot be removed
    assert opened == []


def test_a_pool_serves_more_threads_than_it_has_processes(tmp_path: Path) -> None:
    files = [str(paint(tmp_path / f"{seed}.png", seed=seed)) for seed in range(8)]
    expected = [np.asarray(Image.open(file)).copy() for file in files]
    pool, wrong = Decoders(2), []

    def read(place: int) -> None:
        for _ in range(5):
            two = (place, (place + 1) % 8)
            for each, decoded in zip(two, pool.read([(files[each], ()) for each in two]), strict=True):
                if not isinstance(decoded, Decoded) or not np.array_equal(decoded.pixels, expected[each]):
                    wrong.append(each)

    threads = [threading.Thread(target=read, args=(place,)) for place in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pool.close()
    assert wrong == []


def test_thumbnails_tell_no_place(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8825).update({1: "N", 2: (52.0, 31.0, 7.5), 3: "E", 4: (13.0, 24.0, 18.25)})
    exif[0x010F] = "Secret Camera Maker"
    person(1, (60, 180)).save(tmp_path / "a.jpg", exif=exif)
    person(1, (60, 180)).save(tmp_path / "b.png", exif=exif)
    assert b"Secret Camera" in (tmp_path / "a.jpg").read_bytes()
    model: Any = ColourModel()
    gallery = Gallery.create(tmp_path / "g", model)
    assert gallery.add([tmp_path / "a.jpg", tmp_path / "b.png"]).added == 2
    for thumbnail in gallery.thumbnails([0, 1]):
        with Image.open(io.BytesIO(thumbnail)) as image:
            assert not image.getexif()
            assert not image.info.keys() & {"exif", "comment", "icc_profile", "xmp"}
        assert b"Exif" not in thumbnail
    for path in (tmp_path / "g").rglob("*"):
        assert not path.is_file() or b"Secret Camera" not in path.read_bytes()
