"""Items of a manifest, and the journal of a stage."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tipr.data.manifest import Caption, Record
from tipr.errors import ConfigError, DatasetError
from tipr.translation import records
from tipr.translation.records import Item, Journal, file_sha256, is_complete, items_of, read_rows, require_complete

COAT = Record("a.jpg", (Caption("en", "A red coat."), Caption("en", "A coat.")), identity=1, split="train")
HAT = Record("b.jpg", (Caption("en", "A hat."), Caption("zh", "一顶帽子。")), identity=2, split="train")


def _row(key: str, **more: object) -> dict[str, object]:
    return {"key": key, "draft": "Ein „Mantel“\nmit Umbruch \u2028 一", **more}


def test_items_come_in_order_and_leave_what_is_there() -> None:
    items = items_of((COAT, HAT), source_language="en", languages=("zh", "de"), source="m")
    assert [item.key for item in items] == ["a.jpg#0@zh", "a.jpg#0@de", "a.jpg#1@zh", "a.jpg#1@de", "b.jpg#0@de"]
    assert items[2] == Item("a.jpg#1@zh", "a.jpg", 1, "en", "zh", "A coat.", "train")
    assert Item.of({**items[2].to_row(), "draft": "x"}) == items[2]


@pytest.mark.parametrize(
    ("records", "languages", "error", "message"),
    [
        ((COAT,), ("en",), ConfigError, "language 'en' to translate into is the source's"),
        ((COAT,), ("zh", "zh"), ConfigError, "language 'zh' to translate into is given twice"),
        ((COAT,), ("ch",), ConfigError, "languages: unknown language 'ch'; allowed: en, zh, fr, de; Chinese is 'zh'"),
        ((COAT,), (), ConfigError, "no language to translate into"),
        ((COAT, COAT), ("zh",), DatasetError, "m: image a.jpg occurs in 2 records"),
        ((Record("c.jpg"),), ("zh",), DatasetError, "m: no caption in 'en'"),
        (
            (Record("a.jpg", (*COAT.captions, Caption("zh", "一"))),),
            ("zh",),
            DatasetError,
            "m: image a.jpg has 1 captions in zh and 2 in en: give as many, or none",
        ),
    ],
)
def test_what_cannot_be_translated_is_refused(
    records: tuple[Record, ...], languages: tuple[str, ...], error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        items_of(records, source_language="en", languages=languages, source="m")
    assert str(caught.value).startswith(message)


def test_rows_survive_closing_and_a_key_comes_once(tmp_path: Path) -> None:
    with Journal(tmp_path / "out" / "rows.jsonl", {"model": "m"}) as journal:
        journal.append(_row("a", noise=0.25))
        journal.append(_row("b"))
        with pytest.raises(ValueError, match="'a' is there already"):
            journal.append(_row("a"))
        assert not is_complete(journal.path)
        with pytest.raises(DatasetError, match="not complete"):
            require_complete(journal.path)
        journal.finish()
    with Journal(tmp_path / "out" / "rows.jsonl", {"model": "m"}) as again:
        assert again.complete
        assert again.keys() == {"a", "b"}
        assert list(again.read()) == [_row("a", noise=0.25), _row("b")]
        assert is_complete(again.path)


def test_a_torn_last_line_is_dropped_at_every_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "BLOCK", 7)
    path = tmp_path / "rows.jsonl"
    with Journal(path, {}) as journal:
        journal.append(_row("a"))
        whole = path.stat().st_size
        journal.append(_row("b"))
    content = path.read_bytes()
    for length in range(whole, len(content)):
        path.write_bytes(content[:length])
        with Journal(path, {}) as journal:
            assert journal.keys() == {"a"}
            journal.append(_row("b"))
        assert path.read_bytes() == content
    with Journal(path, {}) as journal:
        journal.finish()
    path.write_bytes(content[: whole - 1])
    assert is_complete(path)
    with Journal(path, {}) as journal:
        assert not journal.keys()
    assert not is_complete(path)


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with Journal(path, {"model": "a", "retries": 3}):
        pass
    with Journal(path, {"model": "b", "retries": 3}) as journal:  # nothing was made yet
        journal.append(_row("a"))
    with pytest.raises(ConfigError) as caught:
        Journal(path, {"model": "a", "retries": 3})
    assert 'rows.jsonl was made with other settings (model: "b" -> "a")' in str(caught.value)


def test_one_process_writes(tmp_path: Path) -> None:
    with Journal(tmp_path / "rows.jsonl", {}), pytest.raises(ConfigError, match="another process is writing"):
        Journal(tmp_path / "rows.jsonl", {})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"key": "a"}\n{"key": "a"}\n', "rows.jsonl:2: key 'a' occurs twice"),
        ('{"draft": "a"}\n', "rows.jsonl:1: a row is a JSON object with a key"),
        ('{"key": "a"\n{"key": "b"}\n', "rows.jsonl:1: not JSON"),
    ],
)
def test_a_damaged_file_is_refused_with_its_line(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DatasetError, match=message):
        list(read_rows(path))


def test_a_file_from_elsewhere_needs_neither_meta_nor_last_line_break(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"key": "a"}\n{"key": "b"}', encoding="utf-8")
    require_complete(path)
    assert [row["key"] for row in read_rows(path)] == ["a", "b"]
    with pytest.raises(DatasetError, match=r"no file .*: run the stage that makes it first"):
        require_complete(tmp_path / "none.jsonl")


def test_a_process_killed_while_it_writes_leaves_whole_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    code = (
        "import sys, itertools\nfrom tipr.translation.records import Journal\n"
        "with Journal(sys.argv[1], {}) as journal:\n"
        "    for number in itertools.count(len(journal)):\n"
        "        journal.append({'key': str(number), 'draft': 'x' * 5000})\n"
        "        number == 50 and print('going', flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with Journal(path, {}) as journal:  # the lock died with the process
        assert [row["key"] for row in journal.read()] == [str(number) for number in range(len(journal))]
        assert len(journal) > 50
        journal.append({"key": str(len(journal)), "draft": "x"})
    assert json.loads(path.read_text().splitlines()[-1])["draft"] == "x"
    assert len(file_sha256(path)) == 64
