"""`tipr data list`: the data sets that are known by name, and the facts of one."""

from __future__ import annotations

from dataclasses import asdict

import click

from tipr.cli import options, output


@click.command(name="list", short_help="Show the known data sets, or all facts of one.")
@click.argument("name", required=False)
@options.json
def list_(*, name: str | None, as_json: bool) -> None:
    """Show the data sets that commands, configurations and reports know by name.

    With NAME everything that is known of that one: licence, where it is asked for, what to cite, the published counts
    and known defects.
    """
    from tipr.cli.data_inspect import reader_of
    from tipr.data.datasets import DATASETS

    if name is None:
        every = {known: reader.facts for known, reader in DATASETS.items()}
        if as_json:
            output.show(output.json_text({known: asdict(facts) for known, facts in every.items()}))
            return
        rows = [
            [known, facts.title, ", ".join(facts.splits), ", ".join(facts.languages)] for known, facts in every.items()
        ]
        for line in output.columns([["name", "data set", "splits", "languages"], *rows], right=()):
            output.show(line)
        return
    facts = reader_of(name).facts
    if as_json:
        output.show(output.json_text({"dataset": name, **asdict(facts)}))
        return
    output.show(f"{name}: {facts.title}")
    lines = {
        "licence": facts.licence,
        "asked for at": facts.request,
        "files": facts.layout,
        "splits": ", ".join(facts.splits),
        "languages": ", ".join(facts.languages),
        "cite": facts.citation,
        "note": facts.note,
    }
    for what, words in lines.items():
        if words:
            output.show(f"  {what}: {words}")
    for edition in facts.editions:
        output.show(f"  counts of {edition.name}" + (f" ({edition.note})" if edition.note else ""))
        rows = [
            [
                split,
                *("?" if number is None else f"{number:,}" for number in (each.identities, each.images, each.captions)),
            ]
            for split, each in edition.splits.items()
        ]
        for line in output.columns([["", "identities", "images", "captions"], *rows], right=(1, 2, 3)):
            output.show(f"    {line}")
    for defect in facts.defects:
        output.show(f"  known defect: {defect}")
