"""Any data set as a manifest: the same records, images and splits in one JSON Lines file."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tipr.data.dataset import Reading
from tipr.data.manifest import MANIFEST_NAME, Record, write_manifest
from tipr.data.samples import check_images_exist
from tipr.errors import DatasetError

LINK_NAME = "images"
"""Folder link beside a manifest that is written elsewhere than its images."""


def write_as_manifest(
    reading: Reading, out: Path | None = None, *, link: bool = False, allow_missing: bool = False
) -> tuple[Path, tuple[Record, ...]]:
    """Write what a data set's files say as a manifest.

    Args:
        reading: of the data set.
        out: the manifest, or a folder for it; beside the annotation when None. Image paths of a manifest stay below
            its folder, so it must lie above the images, unless they are linked.
        link: make a link `images` to the image folder beside the manifest, for image folders that are not written to.
        allow_missing: leave out images that are not on disk instead of refusing.

    Returns:
        the manifest, and the records in it.

    Raises:
        DatasetError: the files have errors, images are missing, the manifest is there already, or would not reach
            its images.
    """
    reading.require_usable()
    if allow_missing:
        records = tuple(record for record in reading.records if (reading.folder / record.image).is_file())
    else:
        records = reading.records
        check_images_exist([reading.folder / record.image for record in records], source=str(reading.files[0]))
    path = reading.folder / MANIFEST_NAME if out is None else out / MANIFEST_NAME if _is_folder(out) else out
    if path.exists():
        raise DatasetError(f"{path} is there already: remove it, or name another file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        named = _linked(reading, path.parent) if link else _below(reading, path.parent)
    except OSError as error:
        raise DatasetError(f"cannot write {error.filename or path}: {error.strerror or error}") from None
    write_manifest(path, (replace(record, image=named(record.image)) for record in records))
    return path, records


def _is_folder(out: Path) -> bool:
    return out.is_dir() or not out.suffix


def _below(reading: Reading, folder: Path) -> Callable[[str], str]:
    prefix = os.path.relpath(os.path.realpath(reading.folder), os.path.realpath(folder))
    if prefix == ".":
        return lambda image: image
    if prefix.split(os.sep)[0] == "..":
        raise DatasetError(
            f"a manifest in {folder} does not reach the images below {reading.folder}: write it there or above, "
            "or use --link"
        )
    return lambda image: f"{prefix.replace(os.sep, '/')}/{image}"


def _linked(reading: Reading, folder: Path) -> Callable[[str], str]:
    target = reading.folder / reading.image_root
    link = folder / LINK_NAME
    if not link.exists() and not link.is_symlink():
        link.symlink_to(os.path.realpath(target), target_is_directory=True)
    elif os.path.realpath(link) != os.path.realpath(target):
        raise DatasetError(f"{link} is there already and is not {target}: choose another folder")
    root = f"{reading.image_root}/" if reading.image_root else ""
    return lambda image: f"{LINK_NAME}/{image.removeprefix(root)}"
