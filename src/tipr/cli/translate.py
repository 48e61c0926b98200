"""`tipr translate`: make a data set multilingual."""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tipr.cli import DONE, RUN_TIME_ERROR, SKIPPED, options, output

if TYPE_CHECKING:
    from tipr.cli.translate_stages import Job

STAGES = ("translate", "filter", "adapt", "rewrite")
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
@click.option("--stage", type=click.Choice([*STAGES, "all"]), default="all", show_default=True, help="What to run.")
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
@click.option(
    "--estimator",
    default="text-encoder",
    show_default=True,
    metavar="NAME",
    help="Of noise: text-encoder[:FOLDER], comet:CHECKPOINT, column:FILE.",
)
@click.option("--threshold", type=click.FloatRange(0, 1), metavar="X", help="Noise allowed; by default the mean.")
@click.option("--vision-model", type=click.Path(path_type=Path), metavar="FOLDER", help="To adapt, and rewrite with.")
@click.option("--adapt", "changes", multiple=True, metavar="KEY=VALUE", help="A setting of adapting, such as rank=8.")
@options.common
def command(*, stage: str, dry_run: bool, as_json: bool, quiet: bool, **given: Any) -> int:
    """Put the captions of MANIFEST into other languages and write OUT/manifest.jsonl with the captions of all of them.

    Four stages: translate by a language model; filter by an estimator of noise; adapt a vision-language model to the
    clean captions; have it rewrite the noisy ones. Without --vision-model the last two are left out.

    A stopped run goes on when the same command is given again. Captions are sent to an endpoint only when the
    environment names one in TIPR_TRANSLATE_URL (its key in TIPR_TRANSLATE_KEY); --local sends nothing.
    """
    from tipr.cli.translate_stages import RUNNERS, Job, NotSent

    stages = _stages(stage, given, dry_run=dry_run)
    job = Job(quiet=quiet, **given)
    if dry_run:
        _show_cost(job, as_json=as_json)
        return DONE
    job.check(stages)
    result: dict[str, Any] = {}
    try:
        for name in stages:
            result[name] = RUNNERS[name](job)
            if not as_json:
                _print(name, result[name])
            if name == "translate" and result[name]["unanswered"]:
                break
    except NotSent:
        output.note("nothing was sent", quiet=quiet)
        return RUN_TIME_ERROR
    except KeyboardInterrupt:
        print(f"\nstopped; continue with:  {shlex.join(['tipr', *sys.argv[1:]])}", file=sys.stderr)
        raise
    if as_json:
        output.show(output.json_text(result))
    unanswered = result.get("translate", {}).get("unanswered", 0)
    if unanswered:
        why = output.safe(result["translate"]["last_error"])
        output.note(
            f"{unanswered:,} captions got no answer, last: {why}; give the command again to ask anew, or add "
            "--leave-unanswered"
        )
        return SKIPPED
    if stage == "all" and "rewrite" not in stages:
        output.note("noisy captions stay as they are: --vision-model FOLDER has them rewritten", quiet=quiet)
    return DONE


def _stages(stage: str, given: dict[str, Any], *, dry_run: bool) -> tuple[str, ...]:
    """The stages to run, "manifest" after those that make texts."""
    if given["local"] is not None and given["model"] is not None:
        raise click.UsageError("--model names a model at an endpoint: not with --local")
    if dry_run and stage not in ("translate", "all"):
        raise click.UsageError("--dry-run is about what translating sends: nothing else is sent")
    if stage in ("adapt", "rewrite") and given["vision_model"] is None:
        raise click.UsageError(f"--stage {stage} needs --vision-model FOLDER")
    if stage in ("all", "rewrite") and given["vision_model"] and given["estimator"].startswith("column"):
        raise click.UsageError(
            "--estimator column has no values for captions that are not written yet: run --stage rewrite with another"
        )
    if stage == "all":
        return (*STAGES, "manifest") if given["vision_model"] else ("translate", "filter", "manifest")
    return (stage, "manifest") if stage in ("translate", "rewrite") else (stage,)


def _show_cost(job: Job, *, as_json: bool) -> None:
    """What would be sent, and where to; nothing is sent or written."""
    from tipr.translation.endpoint import Endpoint

    address = job.backend.settings.address if isinstance(job.backend, Endpoint) else None
    first = job.plan.prompt(job.plan.items[0]).text if job.plan.items else None
    if as_json:
        model = job.backend.describe()["model"]
        output.show(output.json_text({"address": address, "model": model, **asdict(job.cost), "first_request": first}))
        return
    output.show(f"{'to nowhere, a local model' if address is None else output.safe(address)}: {job.cost}")
    if first is not None:
        output.show("the first request says:")
        for line in first.splitlines():
            output.show(f"  {output.safe(line)}")


def _print(name: str, done: dict[str, Any]) -> None:
    """One stage's outcome in words."""
    if name == "translate":
        output.show(
            f"{output.safe(done['path'])}: {done['rows']:,} of {done['items']:,} captions, {done['made']:,} "
            f"of them new, with {done['attempts']:,} requests ({done['tokens'][0]:,} tokens in, "
            f"{done['tokens'][1]:,} out)"
        )
    elif name == "filter":
        for group in done["groups"]:
            _print_group(group)
        output.show(f"to look at: {output.safe(done['page'])}")
    elif name == "adapt":
        left_out = f", {done['unreadable']:,} without a readable picture left out" if done["unreadable"] else ""
        output.show(
            f"{output.safe(done['folder'])}: learnt from {done['captions']:,} captions in {done['steps']:,} steps, "
            f"loss {done['first_loss']:.3f} -> {done['last_loss']:.3f}{left_out}"
        )
    elif name == "rewrite":
        for one in done["languages"]:
            why = ", ".join(f"{reason.replace('_', ' ')} {count:,}" for reason, count in one["refused"].items())
            output.show(
                f"{one['language']}: {one['kept']:,} of {one['noisy']:,} noisy captions replaced"
                + (f"; refused: {why}" if why else "")
                + f"; {one['still_noisy']:,} still noisy, {one['without_text']:,} without text"
            )
        output.show(f"to look at: {output.safe(done['page'])}")
    else:
        empty = f", {done['empty']:,} of them empty" if done["empty"] else ""
        output.show(f"{output.safe(done['path'])}: {done['captions']:,} captions added{empty}")


def _print_group(group: dict[str, Any]) -> None:
    rules = ", ".join(f"{rule.replace('_', ' ')} {count:,}" for rule, count in group["by_rule"].items() if count)
    mean = "" if group["mean"] is None else f", mean noise {group['mean']:.3f}"
    where = group["language"] if group["split"] is None else f"{group['split']} {group['language']}"
    output.show(
        f"{where}: {group['captions']:,} captions{f', by rule: {rules}' if rules else ''}{mean}, {group['noisy']:,} "
        f"above the threshold {group['threshold']:.2f}"
    )
