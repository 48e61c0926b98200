"""Any sequence of changes, searches and deaths leaves a gallery as a dictionary says it should be.

Two handles take turns, as two processes would, so that each must see what the other did. A death is an exception at
a named point after which every handle is thrown away; `test_kills.py` kills real processes.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import workload
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from kill_points import POINTS, arm
from numpy.typing import NDArray
from PIL import Image

from tipr.metrics.ranking import full_order, stable_similarity


class Death(BaseException):
    """Nothing but a test may catch it."""


class Blind:
    """Offers what a gallery needs of a model; sees as many numbers as the rows of `workload` have."""

    embed_dim = workload.DIM
    fingerprint = "0" * 64
    source = None
    preprocessing = SimpleNamespace(image_size=(12, 6))

    def encode_images(self, images: list[Any], *, batch_size: int = 64) -> NDArray[np.float32]:
        del batch_size
        means = np.stack([np.asarray(image, dtype=np.float32).mean(axis=(0, 1)) for image in images]) + 1
        vectors = np.resize(means, (len(images), workload.DIM))
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


class Machine(RuleBasedStateMachine):
    """A gallery and the set of paths that it must hold."""

    most_syncs = 1

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="gallery-"))
        workload.create(self.folder / "g", "process")
        self.handles = self.reopened()
        self.state: frozenset[str] = frozenset()
        self.pictures: dict[str, str] = {}
        self.syncs = 0
        self.ids: dict[str, int] = {}
        self.highest = -1
        self.number = 0

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    def reopened(self) -> list[workload.Opened]:
        handles = [workload.Opened.at(self.folder / "g") for _ in range(2)]
        for handle in handles:
            handle.gallery._model.use(Blind())  # type: ignore[arg-type]
        return handles

    def fresh(self, count: int) -> tuple[str, ...]:
        self.number += count
        return tuple(f"/c{i % 3}/{i:05d}.jpg" for i in range(self.number - count, self.number))

    def chosen(self, seed: int) -> tuple[str, ...]:
        rng = random.Random(seed)
        return tuple(rng.sample(sorted(self.state), min(len(self.state), rng.choice((1, 1, 2, 5)))))

    def step(self, kind: str, seed: int, count: int) -> workload.Step:
        old = self.chosen(seed) if kind in ("update", "remove", "erase") else ()
        new = self.fresh(count if kind == "add" else len(old) if kind == "update" else 0)
        return workload.Step(kind, new, old)

    @rule(who=st.integers(0, 1), count=st.integers(1, 6))
    def add(self, who: int, count: int) -> None:
        self.run(who, self.step("add", 0, count))

    @precondition(lambda self: self.state)
    @rule(who=st.integers(0, 1), kind=st.sampled_from(["update", "remove", "erase"]), seed=st.integers(0, 999))
    def change(self, who: int, kind: str, seed: int) -> None:
        self.run(who, self.step(kind, seed, 0))

    @rule(who=st.integers(0, 1))
    def compact(self, who: int) -> None:
        self.run(who, workload.Step("compact"))

    @precondition(lambda self: self.syncs < self.most_syncs)
    @rule(who=st.integers(0, 1), seed=st.integers(0, 999))
    def sync(self, who: int, seed: int) -> None:
        """Pictures come, change and go in a folder, and the gallery follows it."""
        self.syncs += 1
        rng = np.random.default_rng(seed)
        folder = (self.folder / "pictures").resolve()
        folder.mkdir(exist_ok=True)
        for name in rng.choice(5, 3, replace=False):
            path = folder / f"{name}{workload.PICTURE}"
            if path.exists() and rng.random() < 0.4 and len(list(folder.iterdir())) > 1:
                path.unlink()
            else:
                Image.fromarray(rng.integers(0, 255, (30, 10, 3), dtype=np.uint8)).save(path)
        self.handles[who].gallery.sync(folder)
        self.pictures = {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}

    def run(self, who: int, step: workload.Step) -> None:
        step.run(self.handles[who])
        self.state = step.states(self.state)[-1]

    @precondition(lambda self: self.state)
    @rule(who=st.integers(0, 1), seed=st.integers(0, 999), k=st.integers(1, 9))
    def search(self, who: int, seed: int, k: int) -> None:
        query = np.random.default_rng(seed).normal(size=workload.DIM).astype(np.float32)
        by_id = sorted(self.handles[who].paths().items(), key=lambda item: item[1])
        vectors = self.handles[who].store.vectors()
        order = full_order(stable_similarity(query, vectors))[:k]
        hits = self.handles[who].gallery.search(query, k)
        assert [hit.id for hit in hits] == [by_id[place][1] for place in order]
        assert [hit.metadata["path"] for hit in hits] == [by_id[place][0] for place in order]

    @rule(
        who=st.integers(0, 1),
        kind=st.sampled_from(sorted(set(workload.KINDS))),
        point=st.sampled_from(sorted(POINTS)),
        nth=st.integers(1, 3),
        seed=st.integers(0, 999),
    )
    def die(self, who: int, kind: str, point: str, nth: int, seed: int) -> None:
        step = self.step(kind, seed, 3)

        def death() -> None:
            raise Death

        disarm = arm(point, nth, death)
        try:
            step.run(self.handles[who])
            allowed = step.states(self.state)[-1:]
        except Death:
            allowed = step.states(self.state)
        finally:
            disarm()
        self.handles = self.reopened()
        assert frozenset(self.seen(0)) in allowed
        with self.handles[1].writer.locked():
            self.state = frozenset(self.seen(1))
        assert self.state in allowed

    def seen(self, who: int) -> dict[str, int]:
        """Path -> id of the rows that came with vectors; those of pictures are held to the folder."""
        handle = self.handles[who]
        found = handle.paths()
        columns = handle.reader.columns(("path", "sha256"))
        pictures = dict(zip(columns["path"], columns["sha256"], strict=True))
        assert {path: pictures[path] for path in found if path.endswith(workload.PICTURE)} == self.pictures
        return {path: number for path, number in found.items() if not path.endswith(workload.PICTURE)}

    @invariant()
    def both_see_the_dictionary(self) -> None:
        first = self.seen(0)
        other = self.handles[1].reader
        ids = other.consistently(other.ids).tolist()
        assert ids == self.handles[0].reader.ids().tolist()
        assert first.keys() == self.state
        for path in first.keys() & self.ids.keys():
            assert first[path] == self.ids[path], "an id changed"
        new = [first[path] for path in first.keys() - self.ids.keys()]
        assert all(number > self.highest for number in new), "an id was given twice"
        self.highest = max([self.highest, *new])
        self.ids = first


def sequences(examples: int, steps: int) -> None:
    """Run the machine; the same sequences every time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)  # no death here takes the system along; `test_power_cuts.py` does
        run_state_machine_as_test(
            Machine,
            settings=settings(
                max_examples=examples,
                stateful_step_count=steps,
                deadline=None,
                derandomize=True,
                database=None,
                phases=[Phase.generate],  # shrinking a sequence takes minutes
                suppress_health_check=list(HealthCheck),
            ),
        )


def test_sequences_do_as_the_dictionary_does() -> None:
    sequences(60, 20)


@pytest.mark.slow
def test_many_long_sequences_do_as_the_dictionary_does() -> None:
    sequences(300, 30)
