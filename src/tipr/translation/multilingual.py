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
        ConfigError: OUT cannot be the output folder, see `check_output`.
        DatasetError: no stage that makes texts is complete, or a caption has no row or was another when it was
            translated.
    """
    path = manifest_path(manifest)
    target = out / MANIFEST_NAME
    stage, texts = _texts(out)
    records = read_manifest(path)
    links = check_output(path, out, records)
    wanted = [language for language in LANGUAGES if language in languages]
    added: dict[str, list[Caption]] = {}
    for item in items_of(records, source_language=source_language, languages=wanted, source=str(path)):
        row = texts.get(item.key)
        if row is None or row.get("source") != item.source:
            what = "has no row" if row is None else "was another caption when it was translated"
            raise DatasetError(f"{out / stage}: {item.key} of {path} {what}")
        added.setdefault(item.image, []).append(Caption(item.language, row["caption"]))
    for link, there in links.items():
        # relative, so that both folders can be moved together
        link.symlink_to(os.path.relpath(there, link.parent), target_is_directory=there.is_dir())
    write_manifest(target, (_with(record, added.get(record.image, [])) for record in records))
    captions = [caption for those in added.values() for caption in those]
    return Multilingual(target, stage, len(captions), sum(not caption.text.strip() for caption in captions))


def check_output(manifest: Path, out: Path, records: Iterable[Record]) -> dict[Path, Path]:
    """See that a folder can take the outcome; nothing is made.

    A manifest names pictures below its own folder only: OUT gets links to them.

    Args:
        manifest: the manifest file to translate.
        out: the output folder.
        records: those of the manifest.

    Returns:
        The links to make there: link -> where it leads.

    Raises:
        ConfigError: the outcome would replace the manifest itself, or something is in the way of a link.
    """
    target = out / MANIFEST_NAME
    if target.exists() and target.samefile(manifest):
        raise ConfigError(f"{target} is the manifest to translate: give another output folder")
    source, out = manifest.parent.resolve(), out.resolve()
    links = {}
    for name in sorted({record.image.split("/", 1)[0] for record in records}):
        link, there = out / name, source / name
        if link.resolve() == there.resolve():
            continue
        if os.path.lexists(link):
            raise ConfigError(f"{link} is in the way of a link to {there}: give another output folder")
        links[link] = there
    return links


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
