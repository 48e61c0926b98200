"""Foreign weight files: what is read, what is refused in one line, and that a child with its hands tied reads it."""

from __future__ import annotations

import argparse
import os
import pickle
import struct
import subprocess
import sys
import types
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tipr.errors import WeightsError
from tipr.importers import foreign_files, foreign_reader
from tipr.importers.foreign_files import kind_of, read_tensors

TENSORS = {"a": torch.arange(12.0).view(3, 4), "half": torch.ones(2).half(), "one": torch.tensor(7)}


def same(found: dict[str, torch.Tensor]) -> bool:
    return found.keys() == TENSORS.keys() and all(
        found[name].dtype == value.dtype and torch.equal(found[name], value) for name, value in TENSORS.items()
    )


class Scripted(torch.nn.Module):
    """Stands for OpenAI's archive: weights, and a number in a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3, 2)
        self.register_buffer("input_resolution", torch.tensor(224))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layer(x)
        return out


def archive(path: Path) -> dict[str, torch.Tensor]:
    model = Scripted()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch is giving up TorchScript; OpenAI's files stay
        torch.jit.script(model).save(str(path))
    return model.state_dict()


def foreign_configuration() -> Any:
    """A nested configuration of a class that is not installed when the file is read."""
    module = types.ModuleType("easydict")

    class EasyDict(dict):  # type: ignore[type-arg]
        def __init__(self, **values: Any) -> None:
            super().__init__(**values)
            self.__dict__.update(values)

    EasyDict.__module__, EasyDict.__qualname__ = "easydict", "EasyDict"
    module.EasyDict = EasyDict  # type: ignore[attr-defined]
    sys.modules["easydict"] = module
    return EasyDict(lr=1e-4, itm=EasyDict(use_mask=True, sizes=[1, 2]))


@pytest.fixture
def forget_easydict() -> Any:
    yield
    sys.modules.pop("easydict", None)


def test_a_confined_child_reads_every_kind(tmp_path: Path) -> None:
    torch.save({"model": {f"module.{name}": value for name, value in TENSORS.items()}, "epoch": 3}, tmp_path / "a.pth")
    assert same(read_tensors(tmp_path / "a.pth"))
    wanted = archive(tmp_path / "clip.pt")
    assert kind_of(tmp_path / "clip.pt") == "torchscript"
    found = read_tensors(tmp_path / "clip.pt")
    assert {name: value.tolist() for name, value in found.items()} == {n: v.tolist() for n, v in wanted.items()}


@pytest.mark.usefixtures("foreign_files_read_here")
def test_old_pickles_safetensors_and_holders(tmp_path: Path) -> None:
    torch.save(TENSORS, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    save_file(TENSORS, tmp_path / "new.bin")
    torch.save({"state_dict": TENSORS, "optimizer": {"state": {0: torch.ones(3)}}}, tmp_path / "holder.pth")
    assert [kind_of(tmp_path / name) for name in ("old.pth", "new.bin")] == ["pickle", "safetensors"]
    assert all(same(read_tensors(tmp_path / name)) for name in ("old.pth", "new.bin", "holder.pth"))


@pytest.mark.usefixtures("foreign_files_read_here", "forget_easydict")
@pytest.mark.parametrize("make", [foreign_configuration, lambda: argparse.Namespace(lr=1e-4, names=["a"])])
def test_configuration_objects_become_inert_mappings(make: Callable[[], Any], tmp_path: Path) -> None:
    torch.save({"state_dict": TENSORS, "config": make()}, tmp_path / "best.pth")
    sys.modules.pop("easydict", None)
    assert same(read_tensors(tmp_path / "best.pth"))


def test_without_confinement_it_says_so_in_one_line_and_reads_when_told_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(TENSORS, tmp_path / "a.pth")
    run = subprocess.run

    def child_elsewhere(command: list[str], **settings: Any) -> Any:
        """The child, on a machine whose processor the filter does not know."""
        reader = Path(command[-1])
        program = (
            f"import platform, runpy; platform.machine = lambda: 'riscv64'; runpy.run_path({str(reader)!r}, "
            "run_name='__main__')"
        )
        return run([*command[:-1], "-c", program], **settings)

    monkeypatch.setattr(foreign_files.subprocess, "run", child_elsewhere)
    with pytest.raises(WeightsError, match=r"safely: no confinement on riscv64; --unconfined .* if you trust it$"):
        read_tensors(tmp_path / "a.pth")
    assert same(read_tensors(tmp_path / "a.pth", unconfined=True))


CONFINED = """
import os, socket, subprocess, sys, threading
sys.path.insert(0, sys.argv[1])
from tipr.confinement import confine
out = open(sys.argv[2], "wb")
confine(memory=1 << 28, seconds=20, written=1 << 16)

def attempt(name, act):
    try:
        act()
    except (OSError, MemoryError) as error:
        print(name, type(error).__name__)
    else:
        print(name, "done")

thread = threading.Thread(target=lambda: attempt("program from a thread", lambda: subprocess.run(["true"])))
attempt("network", lambda: socket.create_connection(("127.0.0.1", 9)))
attempt("program", lambda: os.execv(sys.executable, [sys.executable, "-c", ""]))
attempt("fork", os.fork)
attempt("new file", lambda: open(sys.argv[2] + ".new", "w"))
attempt("append", lambda: open(sys.argv[2], "ab"))
attempt("remove", lambda: os.remove(sys.argv[2]))
attempt("rename", lambda: os.rename(sys.argv[2], sys.argv[2] + ".new"))
attempt("folder", lambda: os.mkdir(sys.argv[2] + ".folder"))
attempt("signal", lambda: os.kill(os.getppid(), 0))
attempt("memory", lambda: bytearray(1 << 30))
thread.start(); thread.join()
attempt("read", lambda: open(sys.argv[0] if os.path.exists(sys.argv[0]) else "/proc/self/status").read())
attempt("write", lambda: (out.write(b"x" * 1000), out.flush()))
attempt("much", lambda: (out.write(b"x" * (1 << 17)), out.flush()))
"""


def test_confinement_denies_all_but_reading_and_the_open_file(tmp_path: Path) -> None:
    package = str(Path(foreign_files.__file__).parents[2])
    child = subprocess.run(
        [sys.executable, "-I", "-c", CONFINED, package, str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    answers = dict(line.rsplit(" ", 1) for line in child.stdout.splitlines())
    assert answers.pop("memory") == "MemoryError"
    assert answers.pop("much") == "OSError"
    assert [name for name, answer in answers.items() if answer == "done"] == ["read", "write"]
    assert set(answers.values()) == {"PermissionError", "done"}
    assert os.listdir(tmp_path) == ["out"]


class Evil:
    """A pickle that would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


class Opcode:
    """A pickle that would call `eval`."""

    def __reduce__(self) -> tuple[Any, ...]:
        return eval, ("__import__('os').getpid()",)


def _zip(path: Path, members: dict[str, bytes], *, packed: bool = False) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as made:
        for name, data in members.items():
            made.writestr(f"archive/{name}", data)


def _members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as made:
        return {name.split("/", 1)[1]: made.read(name) for name in made.namelist()}


def bad_files(folder: Path) -> list[Path]:
    """Thirty-odd files that are no weights: cut, changed, of another kind, or written to do harm."""
    good = folder / "good.pth"
    torch.save({"model": TENSORS}, good)
    data, members = good.read_bytes(), _members(good)
    made: list[Path] = []

    def put(name: str, content: bytes) -> None:
        (folder / name).write_bytes(content)
        made.append(folder / name)

    def save(name: str, content: Any) -> None:
        torch.save(content, folder / name)
        made.append(folder / name)

    for part in (0, 1, 7, 64, len(data) // 3, len(data) // 2, len(data) - 40):
        put(f"cut-{part}", data[:part])
    put("text", b"hello, these are no weights\n" * 20)
    put("html", b"<!DOCTYPE html><html><body>Access denied</body></html>")
    put("zeros", bytes(4096))
    put("picture", b"\x89PNG\r\n\x1a\n" + bytes(200))
    put("lfs-pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4\n")
    put("evil-plain", pickle.dumps(Evil(folder / "ran")))
    put("evil-protocol-0", pickle.dumps(Evil(folder / "ran"), protocol=0))
    put("eval", pickle.dumps({"model": Opcode()}))
    put("recursion", b"\x80\x02" + b"]" * 100_000 + b".")
    put("memo", b"\x80\x02" + b"r\xff\xff\xff\x7f" * 10 + b".")
    put("long-string", b"\x80\x02X" + struct.pack("<I", 0x7FFFFFF0) + b"short.")
    save("evil-zip", {"model": Evil(folder / "ran")})
    save("evil-beside", {"model": TENSORS, "config": Evil(folder / "ran")})
    save("evil-in-name", {"model": {Evil(folder / "ran"): torch.ones(1)}})
    save("list", [1, 2, 3])
    save("empty", {})
    save("numbers", {"model": {"a": 1, "b": 2}})
    save("nested", {"model": {"a": {"b": torch.ones(1)}}})
    save("sparse", {"model": {"a": torch.eye(3).to_sparse()}})
    save("complex", {"model": {"a": torch.ones(2, dtype=torch.complex64)}})
    save("expanded", {"model": {"a": torch.ones(1).expand(1 << 34)}})  # 64 GiB in a file of a kilobyte
    for name, change in {
        "no-storage": {key: value for key, value in members.items() if not key.startswith("data/")},
        "short-storage": {key: value[:2] if key.startswith("data/") else value for key, value in members.items()},
        "bomb": {**members, "data/0": bytes(1 << 28)},
        "evil-pickle-in-zip": {**members, "data.pkl": pickle.dumps(Evil(folder / "ran"), protocol=2)},
        "other-names": {f"x{key}": value for key, value in members.items()},
    }.items():
        _zip(folder / name, change, packed=name == "bomb")
        made.append(folder / name)
    _zip(folder / "script", {"constants.pkl": pickle.dumps(Evil(folder / "ran")), "data.pkl": b"", "version": b"3"})
    made.append(folder / "script")
    header = b'{"a":{"dtype":"F32","shape":[9000000000],"data_offsets":[0,36000000000]}}'
    put("safetensors-too-short", struct.pack("<Q", len(header)) + header + bytes(64))
    put("safetensors-header", struct.pack("<Q", 12) + b'{"a":[[[[[[[' + bytes(64))
    return made


@pytest.mark.filterwarnings("ignore:Sparse")
def test_damaged_and_hostile_files_are_refused_in_one_line(tmp_path: Path, foreign_files_read_here: None) -> None:
    """In this process, for speed; what only the child can stop has the test below."""
    files = bad_files(tmp_path)
    assert len(files) >= 30
    for path in files:
        if path.name in STOPPED_BY_THE_CHILD:
            continue
        with pytest.raises(WeightsError) as caught:
            read_tensors(path)
        assert "\n" not in str(caught.value), path.name
        assert str(path) in str(caught.value)
    assert not (tmp_path / "ran").exists()


STOPPED_BY_THE_CHILD = ("expanded", "bomb", "long-string", "recursion", "script", "memo")
"""Files that would take this process down or its memory; the child is for them."""


def test_the_child_takes_the_harm(tmp_path: Path) -> None:
    files = {path.name: path for path in bad_files(tmp_path)}
    for name in ("expanded", "recursion", "script"):
        with pytest.raises(WeightsError) as caught:
            read_tensors(files[name])
        assert "\n" not in str(caught.value), name
    assert not (tmp_path / "ran").exists()


@pytest.mark.slow
def test_the_child_refuses_them_all(tmp_path: Path) -> None:
    for path in bad_files(tmp_path):
        with pytest.raises(WeightsError) as caught:
            read_tensors(path)
        assert "\n" not in str(caught.value), path.name
        assert str(path) in str(caught.value)
    assert not (tmp_path / "ran").exists()


def test_a_name_of_no_file(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no checkpoint at"):
        read_tensors(tmp_path / "absent")
    with pytest.raises(WeightsError, match="cannot read"):
        read_tensors(tmp_path)


def test_the_reader_imports_nothing_of_ours_before_it_is_confined() -> None:
    """The program runs by path with `-I`; what it needs of this package must not pull in more."""
    assert foreign_reader.STAND_INS
    child = subprocess.run(
        [sys.executable, "-c", "import sys, tipr.confinement; print('torch' in sys.modules, 'numpy' in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert child.stdout.split() == ["False", "False"]
