"""Which annotation files of a data set lie in a folder: one with a split field, or one per split and language."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tipr.data.annotations import CAPTION_KEYS, PATH_KEYS, SPLIT_NAMES
from tipr.data.image_index import USUAL_ROOTS
from tipr.data.samples import LANGUAGES, SPLITS

LANGUAGE_CODES = {"en": "en", "ch": "zh", "zh": "zh", "cn": "zh", "fr": "fr", "de": "de"}
"""Codes in file names -> ours; the published files call Chinese `ch`."""
SNIFFED_BYTES = 1 << 19
"""Read of an unknown JSON file to see whether it holds captions of images."""
_KEY = rb'"(?:%b)"\s*:'
_HAS_PATH = re.compile(_KEY % "|".join(PATH_KEYS).encode())
_HAS_CAPTION = re.compile(_KEY % "|".join(CAPTION_KEYS).encode())


@dataclass(frozen=True, slots=True)
class AnnotationFile:
    """A file, with the split and the language that its name says."""

    path: Path
    split: str | None = None
    language: str | None = None


@dataclass(frozen=True, slots=True)
class Export:
    """Annotation files that together describe a data set once."""

    files: tuple[AnnotationFile, ...]

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files."""
        return tuple(file.path for file in self.files)


def home_of(root: Path, names: Sequence[str]) -> Path:
    """The folder of a data set: `root`, a folder in it with one of the names, or that above annotations alone."""
    folder = root.parent if root.is_file() else root
    if _json_files(folder) and not any(child.is_dir() for child in folder.iterdir()) and _has_images(folder.parent):
        return folder.parent
    if root.is_file():
        return folder
    if not _json_files(root):
        wanted = {_plain(name) for name in names}
        for child in sorted(root.iterdir()):
            if child.is_dir() and _plain(child.name) in wanted:
                return child
    return root


def find_exports(root: Path, home: Path, names: Sequence[str], *, by_language: bool) -> list[Export]:
    """All exports of a data set, the one to use first.

    Args:
        root: what the user named; when it is a file, it is the only export, unless it is one of several languages.
        home: the folder of the data set.
        names: known names of the whole annotation, the best first; capitals, `-` and `_` do not matter.
        by_language: whether each language has its own files.

    Returns:
        The known names, then sets of one file per split, then any other JSON file with captions of images.
    """
    found = [_classified(path) for path in _json_files(home, *_subfolders(home))]
    if root.is_file():
        chosen = _classified(root)
        if not by_language or chosen.language is None:
            return [Export((chosen,))]
        found = [file for file in found if file.path.parent == root.parent]
    wanted = [_plain(Path(name).stem) for name in names]
    whole = [file for file in found if not by_language and _plain(file.path.stem) in wanted]
    whole.sort(key=lambda file: (wanted.index(_plain(file.path.stem)), len(file.path.parts), file.path))
    others = [file for file in found if file not in whole and _holds_captions(file.path)]
    parts = [file for file in others if file.split and (file.language is not None) >= by_language]
    sets = [Export(_in_order(group)) for group in _groups(parts, by_language)]
    loose = [] if by_language else [Export((file,)) for file in others if file.split is None]
    return [*(Export((file,)) for file in whole), *sets, *loose]


def _groups(files: Iterable[AnnotationFile], by_language: bool) -> list[list[AnnotationFile]]:
    """Files whose names differ in nothing but split and language; without languages, other ones than English go."""
    groups: dict[tuple[Path, str], list[AnnotationFile]] = {}
    for file in files:
        if not by_language and file.language not in (None, "en"):
            continue
        words = ["*" if word.lower() in SPLIT_NAMES or _code(word) else word for word in _words(file.path.stem)]
        groups.setdefault((file.path.parent, " ".join(words)), []).append(file)
    return [groups[key] for key in sorted(groups, key=lambda key: (len(key[0].parts), *map(str, key)))]


def _in_order(files: Iterable[AnnotationFile]) -> tuple[AnnotationFile, ...]:
    def order(file: AnnotationFile) -> tuple[int, int]:
        return SPLITS.index(file.split or "train"), LANGUAGES.index(file.language or "en")

    return tuple(sorted(files, key=order))


def _classified(path: Path) -> AnnotationFile:
    words = _words(path.stem)
    split = next((SPLIT_NAMES[word.lower()] for word in words if word.lower() in SPLIT_NAMES), None)
    return AnnotationFile(path, split, next((code for word in words if (code := _code(word))), None))


def _code(word: str) -> str | None:
    return LANGUAGE_CODES.get(word.lower())


def _words(stem: str) -> list[str]:
    return re.split(r"[-_. ]+", stem)


def _plain(name: str) -> str:
    return re.sub(r"[-_. ]+", "", name).casefold()


def _subfolders(home: Path) -> list[Path]:
    return sorted(path for path in home.iterdir() if path.is_dir() and path.name.casefold() not in USUAL_ROOTS)


def _json_files(*folders: Path) -> list[Path]:
    return [path for folder in folders for path in sorted(folder.glob("*.[jJ][sS][oO][nN]")) if path.is_file()]


def _has_images(folder: Path) -> bool:
    return any(child.name.casefold() in USUAL_ROOTS for child in folder.iterdir() if child.is_dir())


def _holds_captions(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            start = file.read(SNIFFED_BYTES)
    except OSError:
        return False
    return bool(_HAS_PATH.search(start) and _HAS_CAPTION.search(start))
