"""Small copies of the benchmarks' true layouts: the files, fields and folders of the real ones, invented people."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

Entry = dict[str, Any]
CODES = {"en": "en", "zh": "ch", "fr": "fr", "de": "de"}
"""Our languages -> codes in the names of the multilingual files."""
WORDS = {
    "en": "a person in a {} coat with {} shoes",
    "zh": "一个穿着{}外套和{}鞋子的人",
    "fr": "une personne en manteau {} aux chaussures {}",
    "de": "eine Person im Mantel {} mit Schuhen {}",
}
CUHK_FOLDERS = ("cam_a", "cam_b", "CUHK01", "CUHK03", "Market", "test_query", "train_query")


def entries(
    splits: Mapping[str, tuple[int, int]], *, names: Sequence[str], captions: int = 2, images: int = 2, start: int = 1
) -> list[Entry]:
    """Records of invented people: split -> (people, offset of their ids); `names` are patterns of image paths."""
    made = []
    for split, (people, first) in splits.items():
        for person in range(people):
            for _ in range(images):
                number = len(made)
                made.append(
                    {
                        "split": split,
                        "id": start + first + person,
                        "file_path": names[number % len(names)].format(number),
                        "captions": [sentence("en", number, n) for n in range(captions)],
                    }
                )
    return made


def sentence(language: str, number: int, n: int) -> str:
    """The n-th caption of an image in a language; no two are alike."""
    return WORDS[language].format(f"{number}", f"{n}")


def write_images(root: Path, paths: Iterable[str]) -> None:
    """A small picture at every path."""
    packed = {}
    for kind in ("JPEG", "PNG"):
        buffer = io.BytesIO()
        Image.new("RGB", (4, 8), (90, 20, 20)).save(buffer, kind)
        packed[kind] = buffer.getvalue()
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(packed["PNG" if path.lower().endswith(".png") else "JPEG"])


def write_json(path: Path, tree: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(tree), encoding="utf-8")


def cuhk_pedes(root: Path) -> list[Entry]:
    """`reid_raw.json` and seven image folders with two kinds of files."""
    names = [f"{folder}/{{:04d}}{'.png' if 'CUHK' in folder else '.jpg'}" for folder in CUHK_FOLDERS]
    made = entries({"train": (4, 0), "val": (2, 4), "test": (2, 6)}, names=names)
    for entry in made:
        entry["processed_tokens"] = [caption.split() for caption in entry["captions"]]
    write_images(root / "imgs", (entry["file_path"] for entry in made))
    write_json(root / "reid_raw.json", made)
    return made


def icfg_pedes(root: Path) -> list[Entry]:
    """The folders train and test of MSMT17 hold images of either split."""
    names = ["test/0000/{:04d}_morning.jpg", "train/0001/{:04d}_noon.jpg", "test/0002/{:04d}_afternoon.jpg"]
    made = entries({"train": (4, 0), "test": (2, 4)}, names=names, captions=1, start=0)
    write_images(root / "imgs", (entry["file_path"] for entry in made))
    write_json(root / "ICFG-PEDES.json", made)
    return made


def rstpreid(root: Path) -> list[Entry]:
    """`img_path` instead of `file_path`, one flat folder."""
    made = entries({"train": (4, 0), "val": (2, 4), "test": (2, 6)}, names=["{:04d}_c14_0031.jpg"], start=0)
    write_images(root / "imgs", (entry["file_path"] for entry in made))
    write_json(root / "data_captions.json", [_renamed(entry, "img_path") for entry in made])
    return made


def ufinebench(root: Path) -> list[Entry]:
    """Paths relative to the folder above `images/`; the file has a name of its own."""
    made = entries({"train": (4, 0), "test": (2, 4)}, names=["images/{}.jpg"])
    write_images(root, (entry["file_path"] for entry in made))
    write_json(root / "people_fine.json", made)
    return made


def multilingual(root: Path, made: Sequence[Entry], *, splits: Sequence[str]) -> None:
    """`annos/{split}_reid_{en,ch,fr,de}.json` without a split field, beside the images that are there."""
    for split in splits:
        for language, code in CODES.items():
            part = [
                {
                    "id": entry["id"],
                    "file_path": entry["file_path"],
                    "captions": [sentence(language, number, n) for n in range(len(entry["captions"]))],
                }
                for number, entry in enumerate(made)
                if entry["split"] == split
            ]
            write_json(root / "annos" / f"{split}_reid_{code}.json", part)


def _renamed(entry: Entry, key: str) -> Entry:
    return {key if name == "file_path" else name: value for name, value in entry.items()}
