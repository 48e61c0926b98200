"""The outcome: a manifest with the captions of all languages, readable where any manifest is."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tipr.data.datasets.manifest_dataset import manifest_path
from tipr.data.manifest import MANIFEST_NAME, Caption, Record, read_manifest, write_manifest
from tipr.data.samples import LANGUAGES
from tipr.errors import ConfigError, DatasetError
from tipr.translation.records import REWRITTEN, TRANSLATIONS, Row, is_complete, items_of, read_rows


@dataclass(frozen=True, slots=True)
class Multilingual:
    """What was written.

    Attributes:
        path: the manifest.
        stage: file of the stage whose texts are in it.
        captions: how many were added.
        empty: how many of these hold nothing.
    """

    path: Path
    stage: str
    captions: int
    empty: int


def write_multilingual(
    manifest: Path, out: Path, languages: Sequence[str], *, source_language: str = "en"
) -> Multilingual:
    """Write `OUT/manifest.jsonl`: the records of a manifest with the texts of the last complete stage added.

    The pictures stay where they are: OUT gets links to them under their names.

    Args:
        manifest: the manifest that was translated, or its folder.
        out: folder of the stages.
        languages: languages to add; the captions that an image has already stay.
        source_language: language that was translated.

    Raises:
        ConfigError: OUT is the folder of the manifest itself.
        DatasetError: no stage that makes texts is complete, a caption has no row or was another when it was
            translated, or a link cannot be made.
    """
    path = manifest_path(manifest)
    target = out / MANIFEST_NAME
    if target.exists() and target.samefile(path):
        raise ConfigError(f"{target} is the manifest to translate: give another output folder")
    stage, texts = _texts(out)
    records = read_manifest(path)
    wanted = [language for language in LANGUAGES if language in languages]
    added: dict[str, list[Caption]] = {}
    for item in items_of(records, source_language=source_language, languages=wanted, source=str(path)):
        row = texts.get(item.key)
        if row is None or row.get("source") != item.source:
            what = "has no row" if row is None else "was another caption when it was translated"
            raise DatasetError(f"{out / stage}: {item.key} of {path} {what}")
        added.setdefault(item.image, []).append(Caption(item.language, row["caption"]))
    _link_pictures(path.parent, out, [record.image for record in records])
    write_manifest(target, (_with(record, added.get(record.image, [])) for record in records))
    captions = [caption for those in added.values() for caption in those]
    return Multilingual(target, stage, len(captions), sum(not caption.text.strip() for caption in captions))


def _texts(out: Path) -> tuple[str, dict[str, Row]]:
    """Source and caption of each key, from the last complete stage that makes texts."""
    for stage, name in ((REWRITTEN, "text"), (TRANSLATIONS, "draft")):
        if is_complete(out / stage):
            rows = read_rows(out / stage)
            return stage, {row["key"]: {"source": row["source"], "caption": row[name] or ""} for row in rows}
    raise DatasetError(f"{out}: neither {REWRITTEN} nor {TRANSLATIONS} is complete: run a stage to its end first")


def _with(record: Record, more: Iterable[Caption]) -> Record:
    ordered = sorted(more, key=lambda caption: LANGUAGES.index(caption.language))
    return replace(record, captions=(*record.captions, *ordered))


def _link_pictures(source: Path, out: Path, images: Iterable[str]) -> None:
    """A manifest names pictures below its own folder only: put links to them there."""
    source, out = source.resolve(), out.resolve()
    if source == out:
        return
    for name in sorted({image.split("/", 1)[0] for image in images}):
        link, there = out / name, source / name
        if os.path.lexists(link):
            if link.resolve() != there.resolve():
                raise DatasetError(f"{link} is in the way of a link to {there}: give another output folder")
            continue
        # relative, so that both folders can be moved together
        link.symlink_to(os.path.relpath(there, out), target_is_directory=there.is_dir())
