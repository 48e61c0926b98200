"""`tipr encode`: the retriever's own rows, named row by row; what cannot be read is listed."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tipr.cli import main
from tipr.retrieval import Retriever


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["encode", "demo", *(str(each) for each in arguments)])
    return int(stop.value.code or 0)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index, colour in enumerate(("crimson", "navy", "white")):
        Image.new("RGB", (64, 192), colour).save(folder / f"{index}.png")
    return folder


def test_pictures_give_the_rows_of_the_retriever(tmp_path: Path, pictures: Path) -> None:
    (pictures / "3-broken.png").write_bytes(b"no picture")
    assert run(pictures, "-o", tmp_path / "x.npy", "--batch-size", 2, "-q") == 3
    rows = np.load(tmp_path / "x.npy", allow_pickle=False)
    names = (tmp_path / "x.rows.txt").read_text().splitlines()
    assert [Path(name).name for name in names] == ["0.png", "1.png", "2.png"]
    wanted = Retriever.load("demo").encode_images([pictures / f"{index}.png" for index in range(3)])
    np.testing.assert_allclose(rows, wanted, atol=1e-6)
    assert rows.dtype == np.float32
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pictures", "x.npy", "x.rows.txt"]


def test_texts_come_from_files_and_from_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.txt").write_text("a man in a red jacket\n\n  une femme en robe  \n", encoding="utf-8-sig")
    stream = io.TextIOWrapper(io.BytesIO("一名男子\n".encode()))
    monkeypatch.setattr("sys.stdin", stream)
    assert run(tmp_path / "a.txt", "-", "-o", tmp_path / "t.npy", "--json", "-q") == 0
    texts = ["a man in a red jacket", "une femme en robe", "一名男子"]
    facts = json.loads(capsys.readouterr().out)
    model = Retriever.load("demo")
    assert (facts["rows"], facts["fingerprint"]) == (3, model.fingerprint)
    assert (tmp_path / "t.rows.txt").read_text(encoding="utf-8").splitlines() == texts
    np.testing.assert_allclose(np.load(tmp_path / "t.npy"), model.encode_text(texts), atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("{0}/a.txt", "{0}/pictures", "-o", "{0}/x.npy"), 2, "give texts (.txt files, -) or pictures, not both"),
        (("{0}/pictures", "-o", "{0}/x.csv"), 2, "must end in .npy"),
        (("{0}/pictures", "-o", "{0}/x.npy", "--language", "en"), 2, "--language is for texts"),
        (("{0}/a.txt", "-o", "{0}/x.npy", "--language", "ru"), 2, "ru"),
        (("{0}/a.txt", "-o", "{0}/x.npy"), 1, "there is no text to encode"),
        (("{0}/b.txt", "-o", "{0}/x.npy"), 1, "is not UTF-8 text"),
        (("{0}/absent.txt", "-o", "{0}/x.npy"), 1, "cannot read"),
        (("{0}/absent.png", "-o", "{0}/x.npy"), 1, "no picture could be read"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], *, arguments: tuple[str, ...], code: int, message: str
) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "a.txt").write_text("\n")
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\x00")
    assert run(*(each.format(tmp_path) for each in arguments), "-q") == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "x.npy").exists()
