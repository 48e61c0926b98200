"""Child process that reads one foreign weight file and hands back plain tensors; see `foreign_files.read_tensors`.

Run as a program: the request as JSON on standard input; the answer is one JSON line on standard output, and the tensors
in the safetensors layout at the descriptor that the request names. It confines itself after importing torch and
before it opens the file.
"""

from __future__ import annotations

import ctypes
import json
import pickle
import sys
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

PIECE = 1 << 24
"""Bytes written at a time."""


class Inert:
    """Stands in for a configuration class in a checkpoint: whatever the pickle asks for becomes a plain mapping.

    An `OrderedDict`: the one mapping whose attributes torch's safe unpickler lets a pickle fill as well.
    """

    def __new__(cls, *_: Any) -> Any:
        """An empty mapping, whatever the arguments."""
        return OrderedDict()


STAND_INS = (
    "argparse.Namespace",
    "easydict.EasyDict",
    "addict.addict.Dict",
    "ruamel.yaml.comments.CommentedMap",
    "ruamel_yaml.comments.CommentedMap",
)
"""Configuration classes that training scripts leave in their checkpoints; `Inert` is built in their place."""
HOLDERS = ("model", "state_dict")
"""Where a training script puts the state dict in its checkpoint."""


class Unreadable(Exception):
    """What is wrong with the file, in one line."""


def read(path: Path, kind: str) -> dict[str, Any]:
    """The named tensors of a file.

    Args:
        path: of the file.
        kind: "pickle", "torchscript" or "safetensors".

    Raises:
        Unreadable: why.
    """
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's remarks about foreign files; what matters is refused below
            if kind == "safetensors":
                from safetensors.torch import load_file

                content: Any = load_file(path)
            elif kind == "torchscript":
                archive: Any = torch.jit
                content = dict(archive.load(str(path), map_location="cpu").state_dict())  # no method is called
            else:
                allowed: Any = [(Inert, name) for name in STAND_INS]
                with torch.serialization.safe_globals(allowed):
                    content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise Unreadable("holds more than tensors, or is no checkpoint: refused, it could run code") from None
    except MemoryError:
        raise Unreadable("needs more memory than its size explains: refused") from None
    except (EOFError, KeyError, IndexError, AttributeError, TypeError):
        raise Unreadable("is damaged, or is no checkpoint") from None
    except Exception as error:  # the readers of three formats raise what they please
        raise Unreadable(f"cannot be read: {' '.join(str(error).split())[:120]}") from None
    return _state_dict(content, torch.Tensor)


def _state_dict(content: Any, tensor: type) -> dict[str, Any]:
    """The state dict, wherever the training script put it, without the `module.` of data-parallel training.

    Raises:
        Unreadable: there is none.
    """
    for holder in HOLDERS:
        if isinstance(content, Mapping) and isinstance(content.get(holder), Mapping):
            content = content[holder]
            break
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, tensor) for v in content.values()):
        raise Unreadable("is no state dict: expected names -> tensors, directly or under 'model' or 'state_dict'")
    tensors = {str(name): value for name, value in content.items()}
    if len(tensors) != len(content):
        raise Unreadable("is no state dict: two names are the same as text")
    if any(value.layout != _strided() or value.is_quantized for value in tensors.values()):
        raise Unreadable("holds sparse or quantised tensors")
    if all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
    return tensors


def _strided() -> Any:
    import torch

    return torch.strided


def write(tensors: Mapping[str, Any], stream: BinaryIO) -> None:
    """Write tensors in the safetensors layout, piece by piece: the library's writer would hold everything twice.

    Raises:
        Unreadable: a tensor of a kind that the layout does not have.
    """
    import torch

    kinds = {
        torch.float64: "F64",
        torch.float32: "F32",
        torch.float16: "F16",
        torch.bfloat16: "BF16",
        torch.int64: "I64",
        torch.int32: "I32",
        torch.int16: "I16",
        torch.int8: "I8",
        torch.uint8: "U8",
        torch.bool: "BOOL",
    }
    header: dict[str, Any] = {}
    end = 0
    for name, value in tensors.items():
        if value.dtype not in kinds:
            raise Unreadable(f"{name} is {value.dtype}, which is no kind of weight")
        begin, end = end, end + value.numel() * value.element_size()
        header[name] = {"dtype": kinds[value.dtype], "shape": list(value.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    stream.write(len(text).to_bytes(8, "little") + text)
    for value in tensors.values():
        plain = value.detach().contiguous()
        for start in range(0, size := plain.numel() * plain.element_size(), PIECE):
            stream.write(ctypes.string_at(plain.data_ptr() + start, min(PIECE, size - start)))
    stream.flush()


def main() -> None:
    """Read what the request on standard input names."""
    request = json.loads(sys.stdin.read())
    sys.path.insert(0, request["package"])
    import torch
    from safetensors.torch import load_file  # noqa: F401  here, because nothing is imported once confined

    from tipr.confinement import Refused, confine

    torch.set_num_threads(1)
    with open(request["descriptor"], "wb") as stream:
        try:
            if request["confined"]:
                confine(memory=request["memory"], seconds=request["seconds"], written=request["memory"])
            write(read(Path(request["path"]), request["kind"]), stream)
            answer = {"kind": "done"}
        except Refused as error:
            answer = {"kind": "unconfined", "why": error.strerror or str(error)}
        except Unreadable as error:
            answer = {"kind": "unreadable", "why": str(error)}
        except (MemoryError, RuntimeError):  # torch's allocator raises the second
            answer = {"kind": "unreadable", "why": "needs more memory than its size explains: refused"}
        except OSError as error:
            answer = {"kind": "unreadable", "why": f"cannot be read: {error.strerror or error}"}
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
