"""`tipr data pack`: the same pixels and the same training as from the files, resumed, and never stale."""

from __future__ import annotations

import json
import os
import runpy
import shutil
from pathlib import Path

import benchmark_copies
import numpy as np
import pytest
import torch

from tipr import config as configuration
from tipr.cli import main
from tipr.data import packing
from tipr.data.datasets import DATASETS
from tipr.data.loading import ImageStore
from tipr.data.packing import Pack, pack_images
from tipr.errors import ConfigError, DatasetError
from tipr.retrieval import Retriever
from tipr.training import RunConfig, train

PEOPLE = runpy.run_path(str(Path(__file__).parents[1] / "data" / "training" / "coloured_people.py"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return Path(PEOPLE["make_data"](tmp_path / "data"))


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["data", "pack", *(str(each) for each in arguments)])
    return int(stop.value.code or 0)


def files(data: Path) -> list[Path]:
    return list(DATASETS["manifest"].load(data, "train").images)


def test_a_pack_gives_the_pixels_of_the_files(data: Path, tmp_path: Path) -> None:
    paths = files(data)
    for interpolation in ("bilinear", "bicubic"):
        out = tmp_path / interpolation
        made = pack_images(paths, out, (48, 16), root=data, interpolation=interpolation)
        pack = Pack.open(out)
        store = ImageStore(paths, (48, 16), budget=10**9, interpolation=interpolation)
        order = np.array([3, 0, 3, 1])
        packed = ImageStore(
            paths, (48, 16), budget=0, interpolation=interpolation, packed=(pack.pixels, pack.rows(paths, data))
        )
        np.testing.assert_array_equal(packed.take(order), store.take(order))
        assert packed.cached
        assert (made.images, made.size_bytes) == (len(paths), len(paths) * 3 * 48 * 16)
        assert sorted(each.name for each in out.iterdir()) == ["pack.json", "pixels.u8"]


def test_training_from_a_pack_gives_the_same_weights(data: Path, tmp_path: Path) -> None:
    models = []
    for name in ("plain", "packed"):
        path = PEOPLE["make_config"](tmp_path / f"{name}.yaml", data)
        config = configuration.load(path, RunConfig, overrides=[f"out={json.dumps(str(tmp_path / name))}"])
        if name == "packed":
            height, width = config.encoder.image_size
            assert run("manifest", data, tmp_path / "pack", "--size", f"{height}x{width}", "-q") == 0
            config = config.model_copy(update={"data": config.data.model_copy(update={"pack": tmp_path / "pack"})})
            taller = config.encoder.model_copy(update={"image_size": (2 * height, width)})
            wrong = config.model_copy(update={"encoder": taller, "out": tmp_path / "wrong"})
            with pytest.raises(ConfigError, match="holds images of"):
                train(wrong)
        before = torch.get_num_threads()
        train(config)
        torch.set_num_threads(before)
        models.append(Retriever.load(tmp_path / name).encoder.state_dict())
    assert all(torch.equal(value, models[1][name]) for name, value in models[0].items())


def test_a_pack_that_was_stopped_goes_on(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = files(data)
    monkeypatch.setattr(packing, "CHUNK", 3)
    read, decoded = packing._read, []

    def stopping(path: Path, *settings: object) -> object:
        if len(decoded) == 7:
            raise KeyboardInterrupt
        decoded.append(path)
        return read(path, *settings)

    monkeypatch.setattr(packing, "_read", stopping)
    with pytest.raises(KeyboardInterrupt):
        pack_images(paths, tmp_path / "pack", (48, 16), root=data)
    with pytest.raises(DatasetError, match="it was never finished: give the same command again"):
        Pack.open(tmp_path / "pack")
    monkeypatch.setattr(packing, "_read", read)
    seen: list[tuple[int, int]] = []
    pack_images(paths, tmp_path / "pack", (48, 16), root=data, progress=lambda *each: seen.append(each))
    assert seen[0] == (9, len(paths))  # six were there
    pack_images(paths, tmp_path / "whole", (48, 16), root=data)
    assert (tmp_path / "pack" / "pixels.u8").read_bytes() == (tmp_path / "whole" / "pixels.u8").read_bytes()
    assert (tmp_path / "pack" / "pack.json").read_bytes() == (tmp_path / "whole" / "pack.json").read_bytes()
    again = pack_images(paths, tmp_path / "pack", (48, 16), root=data)
    assert again.images == len(paths)
    with pytest.raises(DatasetError, match="a pack of other images or another size"):
        pack_images(paths, tmp_path / "pack", (24, 16), root=data)


def test_a_pack_knows_when_a_file_changed_and_not_when_it_was_copied(data: Path, tmp_path: Path) -> None:
    paths = files(data)
    pack_images(paths, tmp_path / "pack", (48, 16), root=data)
    pack = Pack.open(tmp_path / "pack")
    os.utime(paths[0], ns=(1, 1))
    pack.rows(paths, data)
    shutil.copyfile(paths[1], paths[0])
    with pytest.raises(DatasetError, match="has changed since pack"):
        pack.rows(paths, data)
    paths[0].unlink()
    assert list(pack.rows(paths, data)) == list(range(len(paths)))  # the pixels are all that training needs
    with pytest.raises(DatasetError, match=r"1 of 1 images are not in pack .*first new\.png"):
        pack.rows([data / "new.png"], data)


def test_unreadable_images_are_left_out_and_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "CUHK-PEDES"
    benchmark_copies.cuhk_pedes(root)
    images = list(DATASETS["cuhk_pedes"].load(root, "train").images)
    images[1].write_bytes(b"no picture")
    assert run("cuhk_pedes", root, tmp_path / "pack", "--size", "32x16", "-q") == 3
    assert images[1].name in capsys.readouterr().err
    pack = Pack.open(tmp_path / "pack")
    assert len(pack.rows([images[0], *images[2:]], root)) == len(images) - 1
    (tmp_path / "pack" / "pixels.u8").write_bytes(b"short")
    with pytest.raises(DatasetError, match=r"cannot be used: pixels\.u8 has another size"):
        Pack.open(tmp_path / "pack")
    with pytest.raises(DatasetError, match="no pack at"):
        Pack.open(tmp_path)
    assert run("cuhk_pedes", root, tmp_path / "other", "--size", "32") == 2
