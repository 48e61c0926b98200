"""A benchmark by its name in a configuration: the same run as from its manifest, scored by the same name."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

from tipr import config as configuration
from tipr.cli import main
from tipr.data.manifest import read_manifest
from tipr.training import RunConfig, train

PEOPLE = runpy.run_path(str(Path(__file__).parents[1] / "data" / "training" / "coloured_people.py"))


def as_rstpreid(root: Path) -> None:
    """The people of the manifest in the layout of RSTPReid, with the one language it has."""
    (root / "images").rename(root / "imgs")
    entries = [
        {
            "id": record.identity,
            "img_path": record.image.removeprefix("images/"),
            "captions": [caption.text for caption in record.captions if caption.language == "en"],
            "split": record.split,
        }
        for record in read_manifest(root / "manifest.jsonl")
    ]
    (root / "manifest.jsonl").unlink()
    (root / "data_captions.json").write_text(json.dumps(entries), encoding="utf-8")


def run(folder: Path, root: Path, dataset: str) -> Path:
    path = PEOPLE["make_config"](
        folder / f"{dataset}.yaml",
        root,
        out=str(folder / dataset),
        data={"dataset": dataset, "root": str(root), "batch_size": 16, "languages": ["en"]},
        epochs=1,
    )
    train(configuration.load(path, RunConfig))
    return folder / dataset


def test_a_benchmark_by_name_is_the_same_run_as_its_manifest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = PEOPLE["make_data"](tmp_path / "data")
    as_rstpreid(root)
    named = run(tmp_path, root, "rstpreid")
    with pytest.raises(SystemExit) as stop:
        main(["data", "import", "rstpreid", str(root)])
    assert not stop.value.code
    imported = run(tmp_path, root, "manifest")
    weights = [folder / "last" / "model.safetensors" for folder in (named, imported)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert "MSMT17" in (named / "card.md").read_text(encoding="utf-8")
    capsys.readouterr()
    scores = []
    for dataset, folder in (("rstpreid", named), ("manifest", imported)):
        with pytest.raises(SystemExit) as stop:
            main(["evaluate", str(folder), str(root), "--dataset", dataset, "--split", "val", "--draws", "0", "--json"])
        assert not stop.value.code
        scores.append(json.loads(capsys.readouterr().out)["text_to_image"])
    assert scores[0] == scores[1]
