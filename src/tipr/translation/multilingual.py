"""The outcome: a manifest with the captions of all languages, readable where any manifest is."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tipr.data.datasets.manifest_dataset import manifest_path
from tipr.data.manifest import MANIFEST_NAME, Caption, Record, read_manifest, write_manifest
from tipr.data.samples import LANGUAGES
from tipr.errors import ConfigError, DatasetError
from tipr.translation.records import REWRITTEN, TRANSLATIONS, Item, is_complete, items_of, read_rows


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


def write_multilingual(manifest: Path, out: Path) -> Multilingual:
    """Write `OUT/manifest.jsonl`: the records of a manifest with the texts of the last complete stage added.

    The captions that an image has already stay. The pictures stay where they are, too: OUT gets links to them.

    Args:
        manifest: the manifest that was translated, or its folder.
        out: folder of the stages.

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
    added: dict[str, list[Caption]] = {}
    for item in _items(records, texts.values(), source=str(path)):
        text = texts.get(item.key)
        if text is None or text.source != item.source:
            what = "has no row" if text is None else "was another caption when it was translated"
            raise DatasetError(f"{out / stage}: {item.key} of {path} {what}")
        added.setdefault(item.image, []).append(Caption(item.language, text.caption))
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


@dataclass(frozen=True, slots=True)
class _Text:
    source_language: str
    language: str
    source: str
    caption: str


def _texts(out: Path) -> tuple[str, dict[str, _Text]]:
    """The file of the last complete stage that makes texts, and what is in it by key."""
    for stage, name in ((REWRITTEN, "text"), (TRANSLATIONS, "draft")):
        if is_complete(out / stage):
            return stage, {
                row["key"]: _Text(row["source_language"], row["language"], row["source"], row[name] or "")
                for row in read_rows(out / stage)
            }
    raise DatasetError(f"{out}: neither {REWRITTEN} nor {TRANSLATIONS} is complete: run a stage to its end first")


def _items(records: Sequence[Record], texts: Collection[_Text], *, source: str) -> tuple[Item, ...]:
    """The captions that the records should have texts for; none where everything was there already."""
    if not texts:
        return ()
    (source_language,) = {text.source_language for text in texts}
    languages = sorted({text.language for text in texts}, key=LANGUAGES.index)
    return items_of(records, source_language=source_language, languages=languages, source=source)


def _with(record: Record, more: Iterable[Caption]) -> Record:
    ordered = sorted(more, key=lambda caption: LANGUAGES.index(caption.language))
    return replace(record, captions=(*record.captions, *ordered))
