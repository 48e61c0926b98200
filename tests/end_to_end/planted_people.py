"""People with marks that can be found again in any file: in vectors, tokens, thumbnails, names, captions."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from PIL import Image

import tipr.gallery.gallery as gallery_module
import tipr.gallery.model as model_module
import tipr.gallery.stores.lance as lance_module
from tipr.gallery import Gallery

DIM = 24
TOKENS = (3, 16)


class MarkedModel:
    """Offers what a gallery needs of a model; its vectors and tokens are drawn from a hash of the pixels."""

    embed_dim = DIM
    fingerprint = "d0" * 32
    source = "demo"
    preprocessing = SimpleNamespace(image_size=(12, 6))
    token_shape = TOKENS

    def encode_images(self, images: Sequence[Any], *, batch_size: int = 64) -> NDArray[np.float32]:
        return np.stack([_drawn(image, DIM) for image in images])

    def encode_text(self, captions: Sequence[str], **_: Any) -> NDArray[np.float32]:
        return np.full((len(captions), DIM), DIM**-0.5, dtype=np.float32)

    def vectors_and_tokens(self, images: Sequence[Any]) -> tuple[NDArray[np.float32], NDArray[np.float16]]:
        tokens = np.stack([_drawn(image, TOKENS[0] * TOKENS[1], salt=1).reshape(TOKENS) for image in images])
        return self.encode_images(images), tokens.astype(np.float16)


def _drawn(image: Any, count: int, salt: int = 0) -> NDArray[np.float32]:
    digest = hashlib.sha256(np.asarray(image).tobytes()).digest()
    row = np.random.default_rng([salt, *digest]).normal(size=count)
    return (row / np.linalg.norm(row)).astype(np.float32)


@dataclass
class Planted:
    """A gallery of marked people.

    Attributes:
        path: the gallery's folder.
        folder: the people's pictures, one folder for each, and `people.jsonl`.
        ids: person -> rows.
        marks: person -> byte strings, each of which only this person's data hold.
    """

    path: Path
    folder: Path
    ids: dict[str, list[int]] = field(default_factory=dict)
    marks: dict[str, list[bytes]] = field(default_factory=dict)

    def open(self) -> Gallery:
        return Gallery.open(self.path, model=MarkedModel())  # type: ignore[arg-type]


def plant(root: Path, people: int, *, pictures: int = 2, commits: int = 5) -> Planted:
    """Make a gallery that keeps tokens, in several fragments, with pages and caches below its folder."""
    rng = np.random.default_rng(people)
    planted = Planted(root / "g", root / "people")
    lines = []
    for number in range(people):
        name = f"Person{number:03d}x{rng.bytes(6).hex()}"
        planted.marks[name] = [name.encode()]
        (planted.folder / name).mkdir(parents=True)
        for place in range(pictures):
            path = planted.folder / name / f"{place}.png"
            Image.fromarray(rng.integers(0, 256, (60, 20, 3), dtype=np.uint8)).save(path)
            caption = f"caption=wears {rng.bytes(6).hex()} boots"  # texts that repeat would be packed in a dictionary
            planted.marks[name] += [caption.encode(), hashlib.sha256(path.read_bytes()).hexdigest().encode()]
            record = {"image": f"{name}/{place}.png", "identity": name, "camera": "gate", "tags": [caption]}
            lines.append(json.dumps({**record, "captions": []}))
    (planted.folder / "people.jsonl").write_text("\n".join(lines) + "\n")
    patch = pytest.MonkeyPatch()
    patch.setattr(gallery_module, "reranker_of", lambda retriever: retriever)
    patch.setattr(model_module, "reranker_of", lambda retriever: retriever)
    patch.setattr(lance_module, "_schema", _readable(lance_module._schema))
    with patch.context():
        model: Any = MarkedModel()
        gallery = Gallery.create(planted.path, model, store_tokens=True)
        for part in range(commits):
            share = lines[part * len(lines) // commits : (part + 1) * len(lines) // commits]
            manifest = planted.folder / "part.jsonl"
            manifest.write_text("\n".join(share) + "\n")
            gallery.add(manifest=manifest)
            manifest.unlink()
    patch.undo()
    _mark_rows(planted, gallery)
    _derive(planted, gallery)
    return planted


def _readable(schema: Callable[..., pa.Schema]) -> Callable[..., pa.Schema]:
    """The same columns without compression: in larger files a mark could be there and not be seen."""

    def plain(*given: Any) -> pa.Schema:
        return pa.schema([field.with_metadata({"lance-encoding:compression": "none"}) for field in schema(*given)])

    return plain


def _mark_rows(planted: Planted, gallery: Gallery) -> None:
    ids, vectors = gallery.vectors()
    thumbnails = gallery.thumbnails(ids.tolist())
    tokens = gallery._store.tokens(ids.tolist())
    names = gallery._store.columns(("identity",))["identity"]
    for row, name, vector, thumbnail, token in zip(ids.tolist(), names, vectors, thumbnails, tokens, strict=True):
        planted.ids.setdefault(name, []).append(row)
        # parts of each, so that a half of one that stays is found as well; the head of every JPEG is the same
        blobs = [vector.tobytes()[:24], vector.tobytes()[24:], token.tobytes()[:40], token.tobytes()[40:]]
        blobs += [thumbnail[-60:-30], thumbnail[len(thumbnail) // 2 :][:30]]
        planted.marks[name] += blobs


def _derive(planted: Planted, gallery: Gallery) -> None:
    """Pages and caches as commands leave them below a gallery's folder."""
    pictures = gallery.thumbnails([rows[0] for rows in planted.ids.values()])
    for name, picture in zip(planted.ids, pictures, strict=True):
        page = planted.path / "reports" / name / f"{name}.html"
        page.parent.mkdir(parents=True)
        jpeg = base64.b64encode(picture)
        page.write_bytes(b'<img src="data:image/jpeg;base64,' + jpeg + b'">')
        planted.marks[name].append(jpeg[-60:-20])
    cache = planted.path / "cache" / "vectors.npy"
    cache.parent.mkdir()
    np.save(cache, gallery.vectors()[1])


def found(planted: Planted, names: Iterable[str]) -> dict[str, int]:
    """How many marks of each person some file, or the name of one, below the gallery's folder holds."""
    parts = []
    for folder, folders, files in os.walk(planted.path):
        parts += [os.fsencode(name) for name in (*folders, *files)]
        parts += [Path(folder, name).read_bytes() for name in files]
    everything = b"\0".join(parts)
    return {name: sum(mark in everything for mark in planted.marks[name]) for name in names}
