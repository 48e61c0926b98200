"""`tipr translate`: make a data set multilingual."""

from __future__ import annotations

import os
import re
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tipr.cli import DONE, RUN_TIME_ERROR, SKIPPED, options, output

if TYPE_CHECKING:
    from tipr.translation.backends import TextBackend
    from tipr.translation.cost import Estimate
    from tipr.translation.translate import Plan

_CODES = re.compile(r"[a-z]{2}(,[a-z]{2})*")


class SeveralLanguages(click.Command):
    """Lets one `--to` take several codes, as in `--to zh fr de`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        spread: list[str] = []
        waiting = list(args)
        while waiting:
            argument = waiting.pop(0)
            codes: list[str] = []
            while argument == "--to" and waiting and _CODES.fullmatch(waiting[0]):
                codes += waiting.pop(0).split(",")
            if argument == "--to" and not codes and (not waiting or waiting[0].startswith("-")):
                raise click.UsageError("--to: name languages, such as --to zh fr de", ctx)
            for code in codes:
                spread += ["--to", code]
            if not codes:
                spread.append(argument)
        return super().parse_args(ctx, spread)


@click.command("translate", cls=SeveralLanguages)
@click.argument("manifest", type=click.Path(exists=True, path_type=Path))
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option("--to", "languages", multiple=True, metavar="CODE...", help="Languages to make: some of en zh fr de.")
@click.option("--from", "source", default="en", show_default=True, metavar="CODE", help="Language to translate.")
@click.option("--model", metavar="NAME", help="Model at the endpoint that TIPR_TRANSLATE_URL names.")
@click.option(
    "--local", type=click.Path(path_type=Path), metavar="FOLDER", help="A Hugging Face model on this machine."
)
@click.option(
    "--prompts", type=click.Path(path_type=Path), metavar="FOLDER", help="Your own translate.txt, rewrite.txt."
)
@click.option("--price", nargs=2, type=float, metavar="IN OUT", help="Of a million tokens, for the estimate.")
@click.option("--dry-run", is_flag=True, help="Estimate the cost, show the first request; send and write nothing.")
@click.option("--yes", "-y", is_flag=True, help="Send captions to the endpoint without asking.")
@click.option("--concurrency", type=click.IntRange(min=1), default=4, show_default=True, help="Requests at a time.")
@click.option(
    "--attempts", type=click.IntRange(min=1), default=8, show_default=True, help="Requests a caption at most."
)
@click.option("--timeout", type=click.FloatRange(min=0.1), default=120.0, show_default=True, help="Seconds a request.")
@click.option("--temperature", type=click.FloatRange(min=0), default=0.0, show_default=True, help="Of sampling.")
@click.option("--max-tokens", type=click.IntRange(min=1), default=1024, show_default=True, help="Of an answer.")
@click.option(
    "--leave-unanswered", is_flag=True, help="Captions that get no answer stay empty, and are not asked again."
)
@options.common
def command(
    *,
    manifest: Path,
    out: Path,
    languages: tuple[str, ...],
    source: str,
    prompts: Path | None,
    leave_unanswered: bool,
    dry_run: bool,
    yes: bool,
    quiet: bool,
    as_json: bool,
    **how: Any,
) -> int:
    """Put the captions of MANIFEST into other languages and write OUT/manifest.jsonl with the captions of all of them.

    A stopped run goes on when the same command is given again. Captions are sent to an endpoint only when the
    environment names one in TIPR_TRANSLATE_URL (its key in TIPR_TRANSLATE_KEY); --local sends nothing.
    """
    from tipr.cli.progress import progress
    from tipr.translation.multilingual import write_multilingual
    from tipr.translation.translate import TranslateSettings, estimate_translate, make_plan, run_translate

    plan = make_plan(TranslateSettings(manifest, out, languages, source, prompts, leave_unanswered))
    backend = _backend(how, plan)
    cost = estimate_translate(plan, backend, prices=how["price"])
    if dry_run:
        _show_cost(plan, backend, cost, as_json=as_json)
        return DONE
    if cost.requests and not _may_send(backend, cost, yes=yes, quiet=quiet):
        output.note("nothing was sent", quiet=quiet)
        return RUN_TIME_ERROR
    try:
        with progress("translating", quiet=quiet, unit="captions") as report:
            done = run_translate(plan, backend, progress=report)
    except KeyboardInterrupt:
        print(f"\nstopped; continue with:  {shlex.join(['tipr', *sys.argv[1:]])}", file=sys.stderr)
        raise
    result: dict[str, Any] = {"translate": asdict(done)}
    if not done.unanswered:
        result["manifest"] = asdict(write_multilingual(manifest, out, languages, source_language=source))
    if as_json:
        output.show(output.json_text(result))
    else:
        _print(plan, result)
    if done.unanswered:
        output.note(
            f"{done.unanswered:,} captions got no answer, last: {done.last_error}; give the command again to ask anew, "
            "or add --leave-unanswered"
        )
    return SKIPPED if done.unanswered else DONE


def _backend(how: dict[str, Any], plan: Plan) -> TextBackend:
    """The model that was named: a local folder before the environment's endpoint."""
    from tipr.errors import ConfigError

    if how["local"] is not None:
        if how["model"] is not None:
            raise click.UsageError("--model names a model at an endpoint: not with --local")
        import torch

        from tipr.translation.local_model import LocalModel

        if how["threads"] is not None:
            torch.set_num_threads(how["threads"])
        return LocalModel.load(how["local"], device=how["device"], max_new_tokens=how["max_tokens"])
    from tipr.translation.answers import ANSWERS, AnswerCache
    from tipr.translation.endpoint import KEY_VARIABLE, URL_VARIABLE, Endpoint, EndpointSettings

    url = os.environ.get(URL_VARIABLE)
    if not url:
        raise ConfigError(
            f"no model to translate with: name an endpoint in {URL_VARIABLE} (https://host/v1), or give --local FOLDER"
        )
    if how["model"] is None:
        raise click.UsageError("--model NAME: say which model of the endpoint")
    settings = EndpointSettings(
        url,
        how["model"],
        os.environ.get(KEY_VARIABLE) or None,
        concurrency=how["concurrency"],
        attempts=how["attempts"],
        timeout=how["timeout"],
        temperature=how["temperature"],
        max_tokens=how["max_tokens"],
        leave_unanswered=plan.settings.leave_unanswered,
    )
    return Endpoint(settings, AnswerCache(plan.settings.out / ANSWERS))


def _may_send(backend: TextBackend, cost: Estimate, *, yes: bool, quiet: bool) -> bool:
    """Tell the cost; ask before captions leave this machine."""
    from tipr.errors import ConfigError
    from tipr.translation.endpoint import Endpoint

    output.note(str(cost), quiet=quiet)
    if yes or not isinstance(backend, Endpoint):
        return True
    host = backend.settings.host
    if not sys.stdin.isatty():
        raise ConfigError(f"{cost.requests:,} captions would be sent to {host} ({cost}): add --yes to send them")
    return click.confirm(f"send {cost.requests:,} captions to {output.safe(host)}?", err=True)


def _show_cost(plan: Plan, backend: TextBackend, cost: Estimate, *, as_json: bool) -> None:
    from tipr.translation.endpoint import Endpoint

    address = backend.settings.address if isinstance(backend, Endpoint) else None
    first = plan.prompt(plan.items[0]).text if plan.items else None
    if as_json:
        tree = {"address": address, "model": backend.describe()["model"], **asdict(cost), "first_request": first}
        output.show(output.json_text(tree))
        return
    output.show(f"{'nowhere, local model' if address is None else output.safe(address)}: {cost}")
    if first is not None:
        output.show("the first request says:")
        for line in first.splitlines():
            output.show(f"  {output.safe(line)}")


def _print(plan: Plan, result: dict[str, Any]) -> None:
    done = result["translate"]
    output.show(
        f"{output.safe(plan.path)}: {done['rows']:,} of {len(plan.items):,} captions, {done['made']:,} of them new, "
        f"with {done['attempts']:,} requests ({done['tokens'][0]:,} tokens in, {done['tokens'][1]:,} out)"
    )
    if "manifest" in result:
        made = result["manifest"]
        empty = f", {made['empty']:,} of them empty" if made["empty"] else ""
        output.show(f"{output.safe(made['path'])}: {made['captions']:,} captions added{empty}")
