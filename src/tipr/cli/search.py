"""`tipr search`: rank the pictures of a gallery by a description in words, a picture, or both."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tipr.cli import DONE, options

if TYPE_CHECKING:
    from tipr.gallery import Gallery
    from tipr.gallery.query import Query
    from tipr.retrieval.language import Detection


@click.command()
@click.argument("gallery", type=click.Path(path_type=Path))
@click.argument("text", nargs=-1)
@click.option(
    "--image", type=click.Path(path_type=Path), metavar="FILE", help="Who looks like this picture; alone or with TEXT."
)
@click.option("--image-weight", type=float, metavar="SHARE", help="Of the picture beside TEXT, 0 to 1.  [default: 0.5]")
@click.option("--not", "without", metavar="TEXT", help="What it must not look like.")
@click.option("--not-weight", type=float, metavar="SHARE", help="How much --not pushes away, up to 1.  [default: 0.5]")
@click.option(
    "--queries",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Many queries: one TEXT a line, or a .jsonl file of objects with text, image, not and their weights.",
)
@click.option("-k", default=10, show_default=True, type=click.IntRange(min=1), metavar="N", help="How many results.")
@click.option(
    "--camera", "cameras", multiple=True, metavar="NAME", help="Only this camera; may be given several times."
)
@click.option("--since", metavar="TIME", help="Only taken from this time on: a date (UTC) or an RFC 3339 time.")
@click.option("--until", metavar="TIME", help="Only up to this time; a date includes its day.")
@click.option("--path", "part", metavar="TEXT", help="Only paths that hold TEXT, or fit it as a pattern with * and ?.")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="Only with this tag; with all of several.")
@click.option(
    "--where",
    metavar="EXPRESSION",
    help='Any conditions, such as: camera in (gate, door) and time >= 2026-03-01 and not bag = "red".',
)
@click.option("--after", metavar="CURSOR", help="The page that follows the one whose --json told this CURSOR.")
@click.option(
    "--group-by",
    metavar="COLUMN",
    help="Only the best picture of each identity, camera, or value of a tag COLUMN=VALUE.",
)
@click.option(
    "--rerank",
    type=click.IntRange(min=1),
    metavar="N",
    help="Look at the words and each of the N best pictures together, and order those by that.",
)
@click.option(
    "--approximate", is_flag=True, help="Through the index of `tipr index approximate`: quick, and may miss a picture."
)
@click.option(
    "--language",
    type=click.Choice(["en", "zh", "fr", "de"]),
    help="Language of TEXT; found out by default.",
)
@click.option("--paths", "only_paths", is_flag=True, help="Print paths only, one a line.")
@click.option(
    "--save", "saves", multiple=True, type=click.Path(path_type=Path), metavar="FILE", help="Save as .html or .png."
)
@click.option("--model", metavar="PATH", help="Where the gallery's model lies now, when it was moved.")
@options.common
def command(  # noqa: PLR0912  (one branch for each form of query and of output)
    gallery: Path,
    text: tuple[str, ...],
    *,
    image: Path | None,
    image_weight: float | None,
    without: str | None,
    not_weight: float | None,
    queries: Path | None,
    k: int,
    tags: tuple[str, ...],
    where: str | None,
    after: str | None,
    cameras: tuple[str, ...],
    since: str | None,
    until: str | None,
    part: str | None,
    group_by: str | None,
    rerank: int | None,
    approximate: bool,
    language: str | None,
    only_paths: bool,
    saves: tuple[Path, ...],
    model: str | None,
    device: str,
    threads: int | None,
    quiet: bool,
    as_json: bool,
) -> int:
    """Rank the pictures of GALLERY whose appearance is most similar to TEXT.

    TEXT is in English, Chinese, French or German; the language is found out and shown. Without it, and without --image
    or --queries, descriptions are read line by line (from a prompt, or from a pipe) until an empty line, and the model
    stays loaded.
    """
    one = bool(text) or image is not None
    _check_usage(one=one, queries=queries, saves=saves, after=after, as_json=as_json, only_paths=only_paths)
    if queries is not None and (one or without or rerank or approximate):
        raise click.UsageError("--queries cannot be combined with TEXT, --image, --not, --rerank or --approximate")
    if (image_weight is not None and not (text and image)) or (not_weight is not None and without is None):
        raise click.UsageError("--image-weight needs TEXT and --image, --not-weight needs --not")
    from tipr.cli import output
    from tipr.cli import search_results as results
    from tipr.cli.progress import progress
    from tipr.gallery import Gallery
    from tipr.gallery.filters import Filters
    from tipr.gallery.query import Query, read_queries

    filters: dict[str, Any] = {
        "camera": cameras or None, "since": since, "until": until, "path": part, "tags": tags or None, "where": where
    }  # fmt: skip
    checked = Filters.of(**filters)  # a bad filter or query is an error before the model is loaded
    conditions = checked.words()
    shares = {"image_weight": image_weight, "without_weight": not_weight}
    parts: dict[str, Any] = {"image": image, "without": without, **{n: w for n, w in shares.items() if w is not None}}
    asked = [Query(" ".join(text) if text else None, **parts)] if one else None
    batch = None if queries is None else read_queries(queries)
    opened = Gallery.open(gallery, model=model, device=device, threads=threads)
    if batch is not None:
        notes: list[str] = []
        found = opened.search_many(batch, k, filters=checked, group_by=group_by, language=language, say=notes.append)
        for query, hits in zip(batch, found, strict=True):
            if as_json:
                results.print_json(query, hits, gallery, spoken=_spoken(query, language), forced=language is not None)
            else:
                results.print_table(hits, only_paths=only_paths, title=query.words())
        for note in dict.fromkeys([*notes, output.NOT_AN_IDENTIFICATION]):
            output.note(note, quiet=quiet or as_json)
        return DONE
    for query in asked or (Query(line, **parts) for line in _lines(opened)):
        spoken = _spoken(query, language)
        notes = []
        with progress("reranking", quiet=quiet or rerank is None, unit="pictures") as report:
            page = opened.search_page(
                query,
                k,
                after=after,
                group_by=group_by,
                language=language if spoken is None else spoken.language,
                rerank=rerank,
                approximate=approximate,
                say=notes.append,
                progress=report,
                **filters,
            )
        hits = page.hits
        said = results.said(spoken, language)
        if as_json:
            results.print_json(
                query, hits, gallery, spoken=spoken, forced=language is not None,
                notes=notes, cursor=page.cursor, one_line=not one,
            )  # fmt: skip
        else:
            results.print_table(hits, only_paths=only_paths)
            following = [f"more: --after {page.cursor}"] if page.cursor and after else []
            for note in [*said, *notes, *following]:
                output.note(note, quiet=quiet)
        if not hits:
            results.explain_nothing(opened, conditions, quiet)
        elif not as_json:
            output.note(output.NOT_AN_IDENTIFICATION, quiet=quiet)
        for save in saves:
            results.save_as(save, query.words(), hits, opened, filters=[*said, *conditions], notes=notes)
            output.note(f"saved {save}", quiet=quiet)
    return DONE


def _lines(gallery: Gallery) -> Iterator[str]:
    """Queries from a prompt or a pipe; everything slow is done before the first one is asked for."""
    if not len(gallery):
        yield "anything"  # lets the search say that the gallery is empty
        return
    _ = gallery.retriever
    reconfigure = getattr(sys.stdin, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")
    while line := _ask().strip():
        yield line


def _ask() -> str:
    """One line; the prompt never ends up among results that go into a pipe or a file."""
    prompt = "description> "
    if not sys.stdin.isatty():
        return sys.stdin.readline()
    if not sys.stdout.isatty():
        click.echo(prompt, err=True, nl=False)
        return sys.stdin.readline()
    import readline  # noqa: F401  (gives `input` line editing and history)

    try:
        return input(prompt)
    except EOFError:
        return ""


def _check_usage(
    *, one: bool, queries: Path | None, saves: tuple[Path, ...], after: str | None, as_json: bool, only_paths: bool
) -> None:
    if as_json and only_paths:
        raise click.UsageError("--json and --paths cannot be combined")
    for save in saves:
        if save.suffix.lower() not in (".html", ".png"):
            raise click.UsageError(f"--save {save}: the name must end in .html or .png")
    for flag, given in (("--save", saves), ("--after", after)):
        if given and (queries is not None or not one):
            raise click.UsageError(f"{flag} needs TEXT or --image")


def _spoken(query: Query, forced: str | None) -> Detection | None:
    """The language of a query's words: the forced one, or what they are taken for; None when it has none."""
    from tipr.retrieval.language import Detection, detect_language

    if query.text is None:
        return None
    return detect_language(query.text) if forced is None else Detection(forced, 1.0)
