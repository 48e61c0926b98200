"""The manifest reader: what it accepts, and that an error names file, line and key."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from tipr.data.manifest import Caption, Record, iterate_manifest, read_manifest, write_manifest
from tipr.errors import DatasetError

FULL = Record(
    image="images/图 1.jpg",
    captions=(Caption("en", 'A man in a "red" coat.'), Caption("zh", "一名男子")),
    identity=7,
    camera="gate",
    time="2026-03-01T08:30:00.25+01:00",
    box=(10, 4.5, 64, 190),
    split="test",
    tags=("indoor",),
)


def test_records_are_written_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "manifest.jsonl"
    bare = Record("b.png")
    write_manifest(path, [FULL, bare])
    assert read_manifest(path) == (FULL, bare)
    assert path.read_text(encoding="utf-8").splitlines()[1] == '{"image": "b.png", "captions": []}'
    assert not path.with_name("manifest.jsonl.partial").exists()
    assert FULL.instant == datetime(2026, 3, 1, 7, 30, 0, 250_000, tzinfo=UTC)
    assert bare.instant is None


def test_blank_lines_and_a_byte_order_mark_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"image": "a.jpg", "captions": []}\r\n\r\n{"image": "b.jpg", "captions": []}')
    assert [line for line, _ in iterate_manifest(path)] == [1, 3]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not JSON"),
        ("[]", "a record must be a JSON object, not a list"),
        ('{"captions": []}', "image: missing"),
        ('{"image": "a.jpg"}', "captions: missing"),
        ('{"image": "a.jpg", "captions": [], "pid": 1}', "unknown key 'pid'; allowed: image, captions, identity"),
        ('{"image": "a.jpg", "image": "b.jpg", "captions": []}', "key 'image' is given twice"),
        ('{"image": "/etc/a.jpg", "captions": []}', "image: '/etc/a.jpg' must be a relative path"),
        ('{"image": "../a.jpg", "captions": []}', "image: '../a.jpg' must be a relative path"),
        ('{"image": "a.jpg", "captions": [{"language": "ch", "text": "x"}]}', "Chinese is 'zh'"),
        ('{"image": "a.jpg", "captions": [{"language": "es", "text": "x"}]}', "allowed: en, zh, fr, de"),
        ('{"image": "a.jpg", "captions": [{"text": "x"}]}', "captions: item 0 must be an object"),
        ('{"image": "a.jpg", "captions": [], "identity": true}', "identity: must be an integer"),
        ('{"image": "a.jpg", "captions": [], "camera": ""}', "camera: must not be empty"),
        ('{"image": "a.jpg", "captions": [], "time": "yesterday"}', "time: 'yesterday': not an RFC 3339 time"),
        ('{"image": "a.jpg", "captions": [], "time": "2026-02-30T00:00:00Z"}', "time: '2026-02-30T00:00:00Z': day"),
        ('{"image": "a.jpg", "captions": [], "box": [0, 0, 0, 5]}', "box: must be [x, y, width, height]"),
        ('{"image": "a.jpg", "captions": [], "box": [0, 0, 1, NaN]}', "NaN is not JSON"),
        ('{"image": "a.jpg", "captions": [], "box": [0, 0, 1, 1e999]}', "box: must be"),
        (
            '{"image": "a.jpg", "captions": [], "split": "Test"}',
            "split: unknown split 'Test'; allowed: train, val, test",
        ),
        ('{"image": "a.jpg", "captions": [], "tags": ["a", "a"]}', "tags: a tag is given twice"),
        ("[" * 100_000, "recursion"),
    ],
)
def test_an_error_names_file_line_and_key(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text('{"image": "ok.jpg", "captions": []}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(DatasetError) as caught:
        read_manifest(path)
    assert str(caught.value).startswith(f"{path}:2: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no manifest at"):
        read_manifest(tmp_path / "none.jsonl")
    with pytest.raises(DatasetError, match="cannot read manifest"):
        read_manifest(tmp_path)
    (tmp_path / "latin.jsonl").write_bytes(b'{"image": "\xe4.jpg", "captions": []}')
    with pytest.raises(DatasetError, match=r"latin.jsonl:1: not UTF-8"):
        read_manifest(tmp_path / "latin.jsonl")
    with pytest.raises(DatasetError, match="cannot write manifest"):
        write_manifest(tmp_path / "no folder" / "m.jsonl", [])


def test_a_refused_record_leaves_the_old_manifest(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    write_manifest(path, [FULL])
    with pytest.raises(DatasetError, match=r"m.jsonl:2: image"):
        write_manifest(path, [FULL, Record("../x.jpg")])
    assert read_manifest(path) == (FULL,)
    assert [entry.name for entry in tmp_path.iterdir()] == ["m.jsonl"]
