"""`tipr encode`: features of texts or images as a NumPy file, for whoever wants to go on with them elsewhere."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tipr.cli import DONE, SKIPPED, options, output

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

    from tipr.cli.progress import Report
    from tipr.retrieval import Retriever

TEXTS = ".txt"
STANDARD_INPUT = "-"


@click.command("encode")
@click.argument("model")
@click.argument("files", nargs=-1, required=True)
@click.option(
    "-o",
    "--out",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.npy",
    help="Rows of features; FILE.rows.txt beside it says what each row is.",
)
@click.option("--language", metavar="CODE", help="Of the texts: en, zh, fr or de; matters to models that ask for it.")
@click.option("--batch-size", type=click.IntRange(min=1), default=64, show_default=True, help="Items encoded at once.")
@options.common
def command(
    *,
    model: str,
    files: tuple[str, ...],
    out: Path,
    language: str | None,
    batch_size: int,
    device: str,
    threads: int | None,
    quiet: bool,
    as_json: bool,
) -> int:
    """Encode FILES with MODEL into unit rows, float32.

    FILES are pictures, folders of pictures, or texts: a .txt file holds one text a line, and - reads texts from
    standard input. Texts and pictures do not mix. A picture that cannot be read is left out and listed; exit code 3.
    """
    texts = [name == STANDARD_INPUT or name.lower().endswith(TEXTS) for name in files]
    if any(texts) != all(texts):
        raise click.UsageError("give texts (.txt files, -) or pictures, not both: their rows would be of two kinds")
    if out.suffix != ".npy":
        raise click.UsageError(f"--out {out} must end in .npy")
    if language is not None:
        if not all(texts):
            raise click.UsageError("--language is for texts")
        from tipr.retrieval.language import checked_language

        language = checked_language(language)
    from tipr.cli.progress import progress
    from tipr.retrieval import Retriever

    given = _lines(files) if all(texts) else []
    retriever = Retriever.load(model, device=device, threads=threads)
    skipped: list[tuple[str, str]] = []
    with progress("encoding", quiet=quiet, unit="texts" if all(texts) else "images") as report:
        if all(texts):
            names = given
            rows = retriever.encode_text(given, language=language, batch_size=batch_size, progress=report)
        else:
            names, rows, skipped = _images(retriever, files, batch_size, report)
    listing = out.with_suffix(".rows.txt")
    _write(out, listing, names, rows)
    for name, reason in skipped:
        output.note(f"skipped {output.safe(name)}: {reason}")
    if as_json:
        facts = {"out": str(out), "rows": len(rows), "width": rows.shape[1], "fingerprint": retriever.fingerprint}
        print(json.dumps({**facts, "names": str(listing), "skipped": [list(each) for each in skipped]}))
    else:
        output.show(f"{out}: {len(rows):,} rows of {rows.shape[1]} numbers; {listing.name} names them")
    return SKIPPED if skipped else DONE


def _lines(files: Sequence[str]) -> list[str]:
    """The texts of all files, one a line; empty lines are no texts.

    Raises:
        DatasetError: a file cannot be read or is no UTF-8, or there is no text at all.
    """
    from tipr.errors import DatasetError

    texts: list[str] = []
    for name in files:
        try:
            data = sys.stdin.buffer.read() if name == STANDARD_INPUT else Path(name).read_bytes()
            content = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise DatasetError(f"{name} is not UTF-8 text") from None
        except OSError as error:
            raise DatasetError(f"cannot read {name}: {error.strerror}") from None
        texts += [line.strip() for line in content.splitlines() if line.strip()]
    if not texts:
        raise DatasetError("there is no text to encode")
    return texts


def _images(
    retriever: Retriever, files: Sequence[str], batch_size: int, report: Report
) -> tuple[list[str], NDArray[np.float32], list[tuple[str, str]]]:
    """Names and rows of the pictures that can be read, and (name, reason) of those that cannot.

    Raises:
        DatasetError: none can.
    """
    import numpy as np

    from tipr.data.images import ImageProblem, read_image
    from tipr.errors import DatasetError
    from tipr.gallery.ingest import list_entries

    entries, unlisted = list_entries(files)
    skipped = [(each.path, each.reason) for each in unlisted]
    names: list[str] = []
    parts: list[NDArray[np.float32]] = []
    for start in range(0, len(entries), batch_size):
        chunk: list[Image] = []
        for entry in entries[start : start + batch_size]:
            try:
                chunk.append(read_image(entry.path))
                names.append(entry.path)
            except ImageProblem as problem:
                skipped.append((entry.path, problem.reason))
        if chunk:
            parts.append(retriever.encode_images(chunk, batch_size=batch_size))
        report(min(start + batch_size, len(entries)), len(entries))
    if not parts:
        raise DatasetError(f"no picture could be read: {skipped[0][0]}: {skipped[0][1]}" if skipped else "no pictures")
    return names, np.concatenate(parts), skipped


def _write(out: Path, listing: Path, names: Sequence[str], rows: NDArray[np.float32]) -> None:
    """Write both files, each in one step; the rows last, so that whoever sees them sees their names."""
    import numpy as np

    lines = "".join(f"{' '.join(name.splitlines())}\n" for name in names).encode(errors="surrogateescape")
    for path, fill in ((listing, lambda stream: stream.write(lines)), (out, lambda stream: np.save(stream, rows))):
        draft = path.with_name(f".{path.name}.draft")
        try:
            with draft.open("wb") as stream:
                fill(stream)
                stream.flush()
                os.fsync(stream.fileno())
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
