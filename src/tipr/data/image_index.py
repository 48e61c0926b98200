"""The image files below a folder, found as an annotation names them: exactly, or but for capitals, prefix or suffix."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
USUAL_ROOTS = ("imgs", "images", "img", "image")
"""Folders that hold the images of a data set, in the order they are met."""
SAMPLED = 200
"""Paths that are looked up to learn where the images lie."""
DEEPEST_PREFIX = 6
"""Leading folders of a path that may be somebody else's, such as the machine on which the file was written."""

Match = Literal["exact", "case", "suffix"]


@dataclass(frozen=True, slots=True)
class Placement:
    """How a path of the annotation becomes a path below the folder: drop `strip` leading parts, put `root` before."""

    root: str = ""
    strip: int = 0

    def place(self, path: str) -> str:
        """The path below the folder."""
        parts = path.split("/")
        return "/".join([*([self.root] if self.root else []), *parts[min(self.strip, len(parts) - 1) :]])


class ImageIndex:
    """All image files below a folder, in one pass over it.

    Attributes:
        folder: where the paths start.
        paths: every image file, relative with forward slashes.
        folders: every folder that holds one, itself or below it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.paths = frozenset(_scan(folder))
        self.folders = {str(parent) for path in self.paths for parent in PurePosixPath(path).parents} - {"."}
        self._folded: dict[str, str] = {}
        self._stems: dict[str, str] = {}
        for path in sorted(self.paths, reverse=True):  # the first in order wins
            self._folded[path.casefold()] = path
            self._stems[_stem(path)] = path

    def find(self, path: str) -> tuple[str, Match] | None:
        """The file that a path means, and how far it had to be bent; None when there is none."""
        if path in self.paths:
            return path, "exact"
        folded = self._folded.get(path.casefold())
        if folded is not None:
            return folded, "case"
        stem = self._stems.get(_stem(path))
        return None if stem is None else (stem, "suffix")

    def placement(self, paths: Sequence[str]) -> Placement:
        """Where the images of an annotation lie, judged by some of its paths.

        Without a single hit it is the usual folder that exists, or the folder itself.
        """
        sample = paths[:: max(1, len(paths) // SAMPLED)]
        roots = ["", *sorted((name for name in self.folders if name.count("/") < 2), key=_root_order)]
        best, hits = Placement(next((root for root in roots if root.casefold() in USUAL_ROOTS), "")), 0
        for strip in range(DEEPEST_PREFIX + 1):
            if hits == len(sample):
                break
            for root in roots[:64]:
                placement = Placement(root, strip)
                found = sum(self.find(placement.place(path)) is not None for path in sample)
                if found > hits:
                    best, hits = placement, found
        return best


def clean_path(path: str) -> str | None:
    """A path of an annotation with forward slashes, without drive, leading slash and dots.

    None when it leaves its folder, is empty, or holds control characters.
    """
    parts = [part for part in path.replace("\\", "/").split("/") if part not in ("", ".")]
    if parts and len(parts[0]) == 2 and parts[0][1] == ":":
        parts = parts[1:]
    if not parts or ".." in parts or any(ord(sign) < 32 or ord(sign) == 127 for part in parts for sign in part):
        return None
    return "/".join(parts)


def _scan(folder: Path) -> list[str]:
    found: list[str] = []
    seen: set[str] = set()
    waiting = [(str(folder), "")]
    while waiting:
        place, prefix = waiting.pop()
        real = os.path.realpath(place)
        if real in seen:  # data sets are often made of links; a loop of them must end
            continue
        seen.add(real)
        try:
            entries = list(os.scandir(place))
        except OSError:  # a folder that may not be read holds no image for us; its images count as missing
            continue
        for entry in entries:
            if entry.is_dir():
                waiting.append((entry.path, f"{prefix}{entry.name}/"))
            elif entry.name.lower().endswith(IMAGE_SUFFIXES):
                found.append(prefix + entry.name)
    return found


def _stem(path: str) -> str:
    stem, dot, suffix = path.casefold().rpartition(".")
    return stem if dot and f".{suffix}" in IMAGE_SUFFIXES else path.casefold()


def _root_order(name: str) -> tuple[bool, int, str]:
    return name.casefold() not in USUAL_ROOTS, name.count("/"), name
