"""Builds a set of rendered people on disk: images, captions, reference score, data statement.

Every person, photograph and caption draws from a generator seeded by (set seed, split, position), so a set is a
function of its knobs alone: any number of workers gives the same bytes, and test people are never those of a training
split, whatever the seeds. A set grows in `OUT.partial` and gets its name when it is complete; a stopped run continues.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg

from tipr.data.datasets.synthetic import PARAPHRASE_NAME
from tipr.data.manifest import MANIFEST_NAME, Caption, Record, format_record
from tipr.data.samples import LANGUAGES, SPLITS
from tipr.data.synthetic.attributes import Person, hard_sibling, sample_person, sample_shot
from tipr.data.synthetic.captions import facts, realise, true_items
from tipr.data.synthetic.photograph import render
from tipr.data.synthetic.presets import Knobs
from tipr.data.synthetic.reference_reader import ReferenceScores, reference_scores
from tipr.data.synthetic.scene import World
from tipr.data.synthetic.statement import STATEMENT_NAME, data_statement
from tipr.errors import DatasetError

FORMAT = 1
"""Version of `benchmark.json`."""
INFO_NAME = "benchmark.json"
CAPTIONS_EACH = 2
"""Captions per image and language: two independent writers."""
JPEG_QUALITY = 92
FIRST_DAY = datetime(2026, 3, 2, tzinfo=UTC)
"""The photographs claim to be from four weeks that start here, so that search by time has something to filter."""
_JOB_NAME = "job.json"
# first word of every seed after the set's own; a number is never used twice, so streams never meet
_SPLIT_WORD = {"train": 1, "val": 2, "test": 3}
_PERSON, _SHOT, _FACTS, _WORDS, _PARAPHRASE = range(5)
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A finished set: where it is, what identifies it, and whether this call made it (`built`)."""

    path: Path
    knobs: Knobs
    manifest_sha256: str
    images_sha256: str
    reference: ReferenceScores | None
    built: bool


@dataclass(frozen=True, slots=True)
class _Job:
    """One person to photograph; `first` is the number of people before this split in the set."""

    split: str
    index: int
    first: int
    person: Person


@dataclass(frozen=True, slots=True)
class _Result:
    """The lines of one person, digests of the images, and what the reference reader needs."""

    lines: list[str]
    paraphrases: list[str]
    digests: list[bytes]
    stated: list[dict[str, str]]
    true: list[dict[str, str]]


def build(out: Path | str, knobs: Knobs, *, workers: int = 1, progress: Progress | None = None) -> Benchmark:
    """Make a set, continue a stopped one, or see that it is already there.

    Args:
        out: the folder to make.
        knobs: what to make.
        workers: processes; more than one are started fresh (`spawn`), so a script needs its `__main__` guard.
        progress: called with (images done, images in all).

    Raises:
        DatasetError: `out` holds something else, another process is making it, or it cannot be written.
    """
    out = Path(out).absolute()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        return _existing(out, knobs)
    try:
        partial = out.with_name(out.name + ".partial")
        with _claimed(partial, knobs):
            made = _fill(partial, out, knobs, max(1, workers), progress)
        if out.exists():
            out.rmdir()
        os.replace(partial, out)
    except OSError as error:
        raise DatasetError(f"cannot write {error.filename or out}: {error.strerror or error}") from None
    return made


def people_of(knobs: Knobs, split: str) -> list[Person]:
    """The people of one split, in order; a sibling always follows the person it resembles, in the same split."""
    people: dict[Person, None] = {}
    previous: Person | None = None
    for index in range(knobs.people(split)):
        generator = _generator(knobs, split, index, _PERSON)
        if previous is not None and generator.random() < knobs.hard:
            person = hard_sibling(generator, previous)[0]
            while person in people:  # a sibling's sibling may fall back on somebody who is there already
                person = hard_sibling(generator, previous)[0]
        else:
            person = sample_person(generator)
        people[person] = None
        previous = person
    return list(people)


def _generator(knobs: Knobs, split: str, index: int, *words: int) -> np.random.Generator:
    return np.random.default_rng([knobs.seed, _SPLIT_WORD[split], index, *words])


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("tipr", "numpy", "pillow", "simplejpeg")}


def _existing(out: Path, knobs: Knobs) -> Benchmark:
    try:
        info = json.loads((out / INFO_NAME).read_text(encoding="utf-8"))
        same = info["knobs"] == knobs.model_dump(mode="json")
        recorded, images, reference = info["manifest_sha256"], info["images_sha256"], info["reference_reader"]
    except (OSError, ValueError, KeyError, TypeError):
        raise DatasetError(f"{out} is there already and is no set of rendered people: choose another folder") from None
    if not same:
        raise DatasetError(f"{out} holds a set with other knobs: choose another folder or remove it")
    if _sha256(out / MANIFEST_NAME) != recorded:
        raise DatasetError(f"{out / MANIFEST_NAME} was changed since it was made: remove {out} and make it again")
    missing = knobs.image_count - sum(1 for _ in (out / "images").rglob("*.jpg"))
    if missing:
        raise DatasetError(f"{out}: {missing} of {knobs.image_count} images are missing: remove it and make it again")
    return Benchmark(
        path=out,
        knobs=knobs,
        manifest_sha256=recorded,
        images_sha256=images,
        reference=None if reference is None else ReferenceScores(**reference),
        built=False,
    )


@contextmanager
def _claimed(partial: Path, knobs: Knobs) -> Iterator[None]:
    """Hold `partial` for this process alone; start afresh when it belongs to other knobs or versions."""
    job = json.dumps({"knobs": knobs.model_dump(mode="json"), "versions": _versions()})
    path = partial / _JOB_NAME
    if partial.exists() and not path.is_file():
        raise DatasetError(f"{partial} is in the way and was not left by a stopped run: remove it")
    partial.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise DatasetError(f"another process is making {partial}") from None
        file.seek(0)
        if file.read() != job:
            shutil.rmtree(partial / "images", ignore_errors=True)
            file.truncate(0)
            file.write(job)
            file.flush()
        yield
        path.unlink()


def _fill(partial: Path, out: Path, knobs: Knobs, workers: int, progress: Progress | None) -> Benchmark:
    jobs: list[_Job] = []
    first = 0
    for split in SPLITS:
        jobs += [_Job(split, index, first, person) for index, person in enumerate(people_of(knobs, split))]
        first += knobs.people(split)
    digest = hashlib.sha256()
    stated: list[dict[str, str]] = []
    true: list[dict[str, str]] = []
    manifest, paraphrase = partial / MANIFEST_NAME, partial / PARAPHRASE_NAME
    with (
        manifest.open("w", encoding="utf-8", newline="\n") as lines,
        paraphrase.open("w", encoding="utf-8", newline="\n") as paraphrases,
        _results(partial, knobs, jobs, workers) as results,
    ):
        for done, result in enumerate(results, start=1):
            lines.writelines(result.lines)
            paraphrases.writelines(result.paraphrases)
            for value in result.digests:
                digest.update(value)
            stated += result.stated
            true += result.true
            if progress is not None:
                progress(done * knobs.images, knobs.image_count)
    reference = _reference(knobs, stated, true)
    manifest_sha256 = _sha256(manifest)
    info = {
        "format": FORMAT,
        "preset": knobs.preset,
        "knobs": knobs.model_dump(mode="json"),
        "manifest_sha256": manifest_sha256,
        "paraphrase_sha256": _sha256(paraphrase),
        "images_sha256": digest.hexdigest(),
        "splits": {split: _counts(knobs, split) for split in SPLITS},
        "reference_reader": None if reference is None else reference.to_json(),
        "versions": _versions(),
    }
    (partial / STATEMENT_NAME).write_text(data_statement(knobs, manifest_sha256), encoding="utf-8")
    (partial / INFO_NAME).write_text(json.dumps(info, indent=2) + "\n", encoding="utf-8")
    return Benchmark(out, knobs, manifest_sha256, digest.hexdigest(), reference, built=True)


def _counts(knobs: Knobs, split: str) -> dict[str, int]:
    images = knobs.people(split) * knobs.images
    return {
        "identities": knobs.people(split),
        "images": images,
        "captions": images * CAPTIONS_EACH * len(knobs.languages),
    }


def _reference(knobs: Knobs, stated: list[dict[str, str]], true: list[dict[str, str]]) -> ReferenceScores | None:
    if not true:
        return None
    gallery = np.repeat(np.arange(knobs.people("test"), dtype=np.int64), knobs.images)
    return reference_scores(stated, true, np.repeat(gallery, CAPTIONS_EACH), gallery)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _results(partial: Path, knobs: Knobs, jobs: list[_Job], workers: int) -> Iterator[Iterator[_Result]]:
    """The results of all jobs in the order of the jobs, made here or by worker processes."""
    if workers == 1:
        studio = _Studio(partial, knobs)
        yield (studio.work(job) for job in jobs)
        return
    # a spawned worker inherits nothing of this process (a forked one would inherit the locks of torch's threads)
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_start_worker, initargs=(partial, knobs))
    try:
        with _for_workers():  # `map` starts the processes
            results = pool.map(_work, jobs, chunksize=4)
        yield results
    except BrokenProcessPool:
        raise DatasetError(f"a worker process died, out of memory perhaps; run again to continue {partial}") from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _for_workers() -> Iterator[None]:
    """Processes started inside use one thread each for linear algebra and leave Ctrl-C to this process."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    here = threading.current_thread() is threading.main_thread()  # only there can signals be set
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN) if here else None
    try:
        yield
    finally:
        if here:
            signal.signal(signal.SIGINT, handler)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


_studio: _Studio | None = None  # one per worker process, made by its initializer


def _start_worker(partial: Path, knobs: Knobs) -> None:
    global _studio  # noqa: PLW0603  the only state a pool worker can keep between jobs
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    _studio = _Studio(partial, knobs)


def _work(job: _Job) -> _Result:
    assert _studio is not None
    return _studio.work(job)


class _Studio:
    """Photographs and captions one person at a time into a folder."""

    def __init__(self, folder: Path, knobs: Knobs) -> None:
        self.folder = folder
        self.knobs = knobs
        self.world: World | None = None

    def work(self, job: _Job) -> _Result:
        result = _Result([], [], [], [], [])
        generator = _generator(self.knobs, job.split, job.index, _SHOT)
        moment = FIRST_DAY + timedelta(
            days=int(generator.integers(28)), minutes=int(generator.integers(7 * 60, 20 * 60))
        )
        cameras: list[int] = []
        for number in range(self.knobs.images):
            # every camera once before any comes again; the walk from one to the next takes some minutes
            cameras = cameras or generator.permutation(self.knobs.cameras).tolist()
            self._photograph(job, number, cameras.pop(), moment, result)
            moment += timedelta(seconds=int(generator.integers(60, 900)))
        return result

    def _photograph(self, job: _Job, number: int, camera: int, moment: datetime, result: _Result) -> None:
        knobs, person = self.knobs, job.person

        def generator(*words: int) -> np.random.Generator:
            return _generator(knobs, job.split, job.index, *words)

        shot = sample_shot(generator(_SHOT, number), person, camera, difficulty=knobs.difficulty)
        image = f"images/{job.split}/{job.index:05d}/camera{camera + 1}_{number}.jpg"
        path = self.folder / image
        packed = path.read_bytes() if path.is_file() else b""
        if not packed.endswith(b"\xff\xd9"):  # else left complete by a stopped run
            if self.world is None:
                self.world = World()
            pixels = render(self.world, person, shot, size=knobs.size, difficulty=knobs.difficulty)
            packed = simplejpeg.encode_jpeg(pixels, quality=JPEG_QUALITY, colorsubsampling="444")
            path.parent.mkdir(parents=True, exist_ok=True)
            unnamed = path.with_suffix(".part")
            unnamed.write_bytes(packed)
            os.replace(unnamed, path)
        result.digests.append(hashlib.sha256(packed).digest())
        captions: dict[str, list[str]] = {language: [] for language in knobs.languages}
        rewordings: dict[str, list[str]] = {language: [] for language in knobs.languages}
        for writer in range(CAPTIONS_EACH):
            said = facts(person, shot, generator(_FACTS, number, writer))
            for language in knobs.languages:
                code = LANGUAGES.index(language)  # so that leaving out one language changes no other
                captions[language].append(realise(said, language, generator(_WORDS, number, writer, code)))
                if job.split == "test":
                    words = generator(_PARAPHRASE, number, writer, code)
                    rewordings[language].append(realise(said, language, words, plans="paraphrase"))
            if job.split == "test":
                result.stated.append(said.items())
        if job.split == "test":
            result.true.append(true_items(person, shot))
            result.paraphrases.append(_line(job, image, camera, moment, rewordings))
        result.lines.append(_line(job, image, camera, moment, captions))


def _line(job: _Job, image: str, camera: int, moment: datetime, captions: dict[str, list[str]]) -> str:
    record = Record(
        image=image,
        captions=tuple(Caption(language, text) for language, texts in captions.items() for text in texts),
        identity=job.first + job.index,
        camera=f"camera{camera + 1}",
        time=moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
        split=job.split,
    )
    return format_record(record) + "\n"


def read_info(root: Path | str) -> dict[str, Any]:
    """`benchmark.json` of a set: preset, knobs, digests, counts, the reference reader's score and chance.

    Raises:
        DatasetError: the folder holds no such file.
    """
    try:
        info = json.loads((Path(root) / INFO_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise DatasetError(f"{root}: no readable {INFO_NAME}; is it a set of rendered people?") from None
    if not isinstance(info, dict):
        raise DatasetError(f"{root}: {INFO_NAME} must be a JSON object")
    return info
