"""Where foreign weights come from: the official place of each file, and fetching it when the user asks for that.

Nothing here runs by itself. `fetch` is called for `tipr import --download` alone; without it `where_to_get` says what
to fetch and where to put it.
"""

from __future__ import annotations

import hashlib
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tipr.errors import WeightsError

Progress = Callable[[int, int], None]
PIECE = 1 << 20
TIMEOUT = 30.0
"""Seconds that a server may be silent."""


@dataclass(frozen=True, slots=True)
class OfficialFile:
    """One file as its makers publish it.

    Attributes:
        name: of the file.
        page: where its makers offer it, for people.
        url: of the file itself; None where it can only be fetched from the page by hand.
        sha256: its digest, which a download must have; None where the makers publish none.
    """

    name: str
    page: str
    url: str | None = None
    sha256: str | None = None


def _clip(name: str, sha256: str) -> OfficialFile:
    base = "https://openaipublic.azureedge.net/clip/models"
    return OfficialFile(name, "https://github.com/openai/CLIP", f"{base}/{sha256}/{name}", sha256)


IRRA_PAGE = "https://github.com/anosorae/IRRA"
BI_IRRA_PAGE = "https://github.com/Flame-Chasers/Bi-IRRA"
OFFICIAL: dict[str, tuple[OfficialFile, ...]] = {
    "openai_clip": (
        _clip("ViT-B-16.pt", "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f"),
        _clip("ViT-B-32.pt", "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af"),
        _clip("ViT-L-14.pt", "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836"),
    ),
    "huggingface_clip": (OfficialFile("model.safetensors", "https://huggingface.co/openai/clip-vit-base-patch16"),),
    "open_clip": (OfficialFile("open_clip_pytorch_model.bin", "https://github.com/mlfoundations/open_clip"),),
    "irra": (OfficialFile("best.pth", IRRA_PAGE),),
    "bi_irra": (OfficialFile("checkpoint_best_en.pth", BI_IRRA_PAGE),),
    "x2vlm": (
        OfficialFile(
            "cclm_x2vlm_base.th",
            "https://github.com/zengyan-97/X2-VLM",
            "https://lf-robot-opensource.bytetos.com/obj/lab-robot-public/x2vlm_ckpts_2release/cclm_x2vlm_base.th",
        ),
    ),
}
"""Format -> its files; the first is the one that the published recipes start from."""

CLIP_VOCABULARY = OfficialFile(
    "bpe_simple_vocab_16e6.txt.gz",
    "https://github.com/openai/CLIP",
    "https://raw.githubusercontent.com/openai/CLIP/main/clip/bpe_simple_vocab_16e6.txt.gz",
    "924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a",
)
XLMR_VOCABULARY = OfficialFile("sentencepiece.bpe.model", "https://huggingface.co/FacebookAI/xlm-roberta-base")


def official_file(format: str, path: Path) -> OfficialFile:
    """The official file that a path names by its last part; else the first of the format."""
    files = OFFICIAL[format]
    return next((file for file in files if file.name == path.name), files[0])


def where_to_get(file: OfficialFile, path: Path) -> str:
    """One line for a user who does not have the file: what to fetch, and where to put it."""
    digest = f", SHA-256 {file.sha256}" if file.sha256 else ""
    how = ", or add --download" if file.url else ""
    return f"no file {path}: get {file.name} from {file.url or file.page}{digest}, and put it there{how}"


def fetch(file: OfficialFile, path: Path, *, progress: Progress | None = None) -> str:
    """Download a file; a download that was stopped goes on where it was, and only a whole one gets its name.

    Args:
        file: what to fetch.
        path: where to put it; the unfinished download lies beside it as `NAME.part`.
        progress: called with (bytes there, bytes in all).

    Returns:
        its SHA-256, to write down where the makers publish none.

    Raises:
        WeightsError: there is no address, the server does not answer, or what came has another digest.
    """
    if file.url is None:
        raise WeightsError(f"{file.name} has no address to download from: get it from {file.page}, put it at {path}")
    part = path.with_name(f"{path.name}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    there = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(file.url, headers={"Range": f"bytes={there}-"} if there else {})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            whole = answer.status != 206  # the server does not know ranges: from the start
            total = int(answer.headers.get("Content-Length") or 0) + (0 if whole else there)
            done = 0 if whole else there
            with part.open("wb" if whole else "ab") as stream:
                while piece := answer.read(PIECE):
                    stream.write(piece)
                    done += len(piece)
                    if progress is not None:
                        progress(done, max(total, done))
                stream.flush()
                os.fsync(stream.fileno())
    except urllib.error.HTTPError as error:
        if error.code != 416:  # asked for what comes after the end: everything is there
            raise WeightsError(f"{file.url} answers {error.code} {error.reason}; {where_to_get(file, path)}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        digest = f" (SHA-256 {file.sha256})" if file.sha256 else ""
        raise WeightsError(
            f"cannot download {file.url}: {reason}; the same command goes on later; or fetch {file.name}{digest} on "
            f"another machine and put it at {path}"
        ) from None
    else:
        if done < total:
            raise WeightsError(f"{file.url} broke off after {done:,} of {total:,} bytes; the same command goes on")
    digest = _sha256(part)
    if file.sha256 is not None and digest != file.sha256:
        part.unlink()
        raise WeightsError(f"{file.url} gave a file with SHA-256 {digest}, not {file.sha256}: thrown away")
    part.replace(path)
    return digest


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
