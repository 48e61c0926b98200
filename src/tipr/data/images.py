"""Reading untrusted image files, resizing and normalising them.

The content of a file decides what it is, never its name. Five formats are decoded (JPEG, PNG, WebP, BMP, TIFF), each
by its own decoder, so nothing else of the imaging library can be reached by a crafted file. The result is always RGB
with 8 bits: EXIF orientation applied, the first frame of an animation, 16 bits scaled (not clipped) to 8, transparency
composited on white. Colour profiles are ignored. Torch is imported on first use of a tensor function only.
"""

from __future__ import annotations

import io
import logging
import os
import re
import stat
import threading
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, get_args

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import BmpImagePlugin, Image, ImageFile, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin

from tipr.errors import ConfigError, DatasetError

if TYPE_CHECKING:
    from torch import Tensor

FORMATS = ("JPEG", "PNG", "WebP", "BMP", "TIFF")
"""What is read."""
MAX_PIXELS = 50_000_000
"""Default limit on width x height, checked before any pixel is decoded."""
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
"""Channel statistics of CLIP's training images, for pixels in [0, 1]."""
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Those of ImageNet."""
Interpolation = Literal["bilinear", "bicubic"]

HINTS = {
    "missing": "check the path",
    "unreadable": "it must be a regular file that you may read",
    "empty file": "copy it again from its source",
    "not an image": f"{', '.join(FORMATS)} are read",
    "unsupported format": f"save it as an ordinary RGB picture, {', '.join(FORMATS[:-1])} or {FORMATS[-1]}",
    "truncated": "its end is missing: copy it again from its source",
    "damaged": "its picture data are broken: copy it again or save it anew",
    "too large": "scale it down",
    "too slow": "decoding it takes unreasonably long: save it anew",
    "breaks the decoder": "it stopped the process that decoded it: do not open it elsewhere either",
}
"""Reason code of an `ImageProblem` -> what the user can do."""

_DECODERS: tuple[tuple[re.Pattern[bytes], type[ImageFile.ImageFile]], ...] = (
    (re.compile(rb"\xff\xd8\xff"), JpegImagePlugin.JpegImageFile),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), PngImagePlugin.PngImageFile),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), WebPImagePlugin.WebPImageFile),
    (re.compile(rb"BM.{4}\0\0\0\0", re.DOTALL), BmpImagePlugin.BmpImageFile),
    (re.compile(rb"II[*+]\0|MM\0[*+]"), TiffImagePlugin.TiffImageFile),
)
_SEGMENT = re.compile(rb"\xff([\xc0-\xcf\xda-\xfe])(..)", re.DOTALL)
"""Of a JPEG: its marker and its length."""
_OTHER_IMAGES = re.compile(
    rb"GIF8|....ftyp(avif|avis|heic|heix|mif1|msf1)|\0\0\0\x0cjP  |\xff\x4f\xff\x51|8BPS|\0\0\1\0|P[1-7]\s|DDS |qoif"
    rb"|\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?<svg|%PDF|gimp xcf|\xff\x0a|\0\0\0\x0cJXL |#\?RADIANCE",
    re.DOTALL,
)
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_UNSUPPORTED = re.compile(r"unknown pixel mode|samples per pixel|Unsupported BMP|cannot handle \d+-(bit|layer)")
"""What the decoders say of sound files that they do not know: TIFFs of odd channels, JPEGs of 12 bits."""
_EXIF = {
    JpegImagePlugin.JpegImageFile: b"Exif\0",
    PngImagePlugin.PngImageFile: b"eXIf",
    WebPImagePlugin.WebPImageFile: b"EXIF",
    TiffImagePlugin.TiffImageFile: b"",  # it is its own
}
"""What must stand somewhere in a file that has EXIF data."""
_EXIF_DETAILS, _TAKEN, _TAKEN_OFFSET = 0x8769, 0x9003, 0x9011
# the imaging library logs what it then raises as well; without a handler that goes to stderr, among progress lines
logging.getLogger("PIL").addHandler(logging.NullHandler())
# `catch_warnings` swaps process-wide state: without the lock, threads would restore each other's filters
_WARNINGS_LOCK = threading.Lock()


class ImageProblem(DatasetError):
    """A file that cannot be used as an image: `reason` is a key of `HINTS`, `hint` says what to do."""

    def __init__(self, path: str, reason: str, detail: str = "") -> None:
        self.path = path
        self.reason = reason
        self.detail = " ".join(detail.split())
        self.hint = HINTS[reason]
        super().__init__(f"{path}: {reason}{f' ({self.detail})' if self.detail else ''}; {self.hint}")

    def __reduce__(self) -> tuple[type[ImageProblem], tuple[str, str, str]]:
        return type(self), (self.path, self.reason, self.detail)


def read_image(source: Path | str | BinaryIO, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Read one image file of any allowed format.

    Args:
        source: a path, or an open binary file.
        max_pixels: refuse more pixels (width x height) than this, before decoding.

    Returns:
        An RGB image of its own memory, 8 bits a channel, upright by its EXIF orientation.

    Raises:
        ImageProblem: with a reason of `HINTS`; nothing else is raised for a bad file.
    """
    if isinstance(source, Path | str):
        name = str(source)
        data = _read_file(name, max_pixels)
    else:
        name = str(getattr(source, "name", "image"))
        data = source.read(_byte_limit(max_pixels) + 1)
        if len(data) > _byte_limit(max_pixels):
            raise ImageProblem(name, "too large", f"over {_byte_limit(max_pixels) >> 20} MiB")
    pixels = _decode(name, data, max_pixels)
    return pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)


def read_pixels(data: bytes, name: str, room: memoryview, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Decode as `read_image` does, into memory that is there.

    Args:
        data: the bytes of a file.
        name: of the file, for errors.
        room: at least 3 x `max_pixels` bytes, writeable; filled from its start with (height, width, 3) uint8.
        max_pixels: as in `read_image`.

    Returns:
        (height, width).

    Raises:
        ImageProblem: as `read_image`.
    """
    pixels = _decode(name, data, max_pixels, room)
    if isinstance(pixels, Image.Image):
        height, width = pixels.height, pixels.width
        np.frombuffer(room, dtype=np.uint8, count=height * width * 3).reshape(height, width, 3)[:] = np.asarray(pixels)
        return height, width
    return pixels.shape[0], pixels.shape[1]


def _decode(name: str, data: bytes, max_pixels: int, room: memoryview | None = None) -> Image.Image | NDArray[np.uint8]:
    if not data:
        raise ImageProblem(name, "empty file")
    decoder = _decoder(name, data)
    if decoder is JpegImagePlugin.JpegImageFile:
        fast = _read_plain_jpeg(name, data, max_pixels, room)
        if fast is not None:
            return fast
    # only the imaging library's remarks on odd metadata are silenced; what matters is raised
    with _WARNINGS_LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _read_any(name, data, decoder, max_pixels)


def capture_time(data: bytes) -> datetime | None:
    """When a photograph was taken, by its own EXIF data (DateTimeOriginal, and OffsetTimeOriginal where it stands).

    Nothing else is looked at, in particular no location.

    Args:
        data: the bytes of a file that `read_image` accepts.

    Returns:
        The time in UTC; a camera clock without an offset counts as UTC. None when there is no such time, or none that
        can be read: that says nothing about the picture.
    """
    decoder = next((decoder for pattern, decoder in _DECODERS if pattern.match(data)), None)
    if decoder not in _EXIF or _EXIF[decoder] not in _head(data):
        return None
    try:
        with _WARNINGS_LOCK, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with decoder(io.BytesIO(data)) as image:
                details = image.getexif().get_ifd(_EXIF_DETAILS)
        clock, offset = (str(details.get(tag, "")).strip(" \0") for tag in (_TAKEN, _TAKEN_OFFSET))
        taken = datetime.strptime(clock, "%Y:%m:%d %H:%M:%S").replace(tzinfo=UTC)
        if re.fullmatch(r"[+-]\d\d:\d\d", offset):
            taken = taken.replace(tzinfo=datetime.strptime(offset, "%z").tzinfo)
        return taken.astimezone(UTC)
    except Exception:  # metadata of strangers may be broken in any way
        return None


def _head(data: bytes) -> bytes:
    """The segments of a JPEG before its picture data, where its metadata stand; the whole of another file."""
    at = 2
    while data[:2] == b"\xff\xd8" and (segment := _SEGMENT.match(data, at)):
        if segment[1] == b"\xda":  # start of scan
            return data[:at]
        at += 2 + int.from_bytes(segment[2], "big")
    return data


def _byte_limit(max_pixels: int) -> int:
    # four uncompressed channels of 16 bits, and room for metadata
    return 8 * max_pixels + (64 << 20)


def _read_file(name: str, max_pixels: int) -> bytes:
    try:
        status = os.stat(name)
        if not stat.S_ISREG(status.st_mode):  # a pipe would hang, a folder cannot be read
            raise ImageProblem(name, "unreadable", "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file")
        if status.st_size > _byte_limit(max_pixels):
            raise ImageProblem(name, "too large", f"{status.st_size >> 20} MiB")
        with open(name, "rb") as file:
            return file.read()
    except FileNotFoundError:
        raise ImageProblem(name, "missing") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the path
        raise ImageProblem(name, "unreadable", getattr(error, "strerror", None) or str(error)) from None


def _decoder(name: str, data: bytes) -> type[ImageFile.ImageFile]:
    for pattern, decoder in _DECODERS:
        if pattern.match(data):
            return decoder
    if _OTHER_IMAGES.match(data[:1024]):
        raise ImageProblem(name, "unsupported format")
    raise ImageProblem(name, "not an image")


def _check_pixels(name: str, width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise ImageProblem(name, "damaged", f"{width} x {height} pixels")
    if width * height > max_pixels:
        raise ImageProblem(name, "too large", f"{width} x {height} pixels, the limit is {max_pixels:,}")


def _read_plain_jpeg(
    name: str, data: bytes, max_pixels: int, room: memoryview | None = None
) -> NDArray[np.uint8] | None:
    """Colour or grey JPEG without orientation, through libjpeg-turbo directly: the same pixels in less time."""
    head = _head(data)
    if b"Exif\0" in head or b"ns.adobe.com/xap" in head:
        return None
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data)
        if space not in ("YCbCr", "Gray"):
            return None
        _check_pixels(name, width, height, max_pixels)
        return np.asarray(simplejpeg.decode_jpeg(data, buffer=room), dtype=np.uint8)
    except ValueError:
        return None  # the general reader gives the verdict


def _read_any(name: str, data: bytes, decoder: type[ImageFile.ImageFile], max_pixels: int) -> Image.Image:
    try:
        with decoder(io.BytesIO(data)) as image:
            _check_pixels(name, image.width, image.height, max_pixels)
            image.load()
            upright = image.transpose(_TURNS[turn]) if (turn := _orientation(image)) in _TURNS else image
            return _to_rgb(name, upright)
    except ImageProblem:
        raise
    except MemoryError:
        raise ImageProblem(name, "too large", "it needs more memory than decoding may take") from None
    except Exception as error:  # a crafted file may trip a decoder anywhere; every such trip is the file's fault
        if _looks_truncated(data, error):
            reason = "truncated"
        else:
            reason = "unsupported format" if _UNSUPPORTED.search(str(error)) else "damaged"
        raise ImageProblem(name, reason, str(error)) from None


def _looks_truncated(data: bytes, error: Exception) -> bool:
    if isinstance(error, EOFError) or re.search("truncated|end of file|not enough", str(error), re.IGNORECASE):
        return True
    if data.startswith(b"\xff\xd8"):
        return b"\xff\xd9" not in data
    if data.startswith(b"\x89PNG"):
        return b"IEND" not in data[-64:]
    if data.startswith(b"RIFF"):
        return int.from_bytes(data[4:8], "little") + 8 > len(data)
    if data.startswith((b"II*", b"MM\0*")):
        return int.from_bytes(data[4:8], "little" if data.startswith(b"II") else "big") >= len(data)
    return len(data) < 26  # no room for a BMP header


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(0x0112, 1)
    except Exception:  # broken EXIF says nothing about the picture
        return 1
    return value if isinstance(value, int) else 1


def _to_rgb(name: str, image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_scale_deep(name, np.asarray(image))).convert("RGB")
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        layer = image.convert("RGBA")
        canvas = Image.new("RGBA", layer.size, "white")
        canvas.alpha_composite(layer)
        return canvas.convert("RGB")
    try:
        # convert() of an RGB image is a copy of its own memory
        return image.convert("RGB")
    except ValueError:
        raise ImageProblem(name, "unsupported format", f"colour mode {image.mode}") from None


def _scale_deep(name: str, pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """(H, W) of 16 bits, 32 bits or floating point -> uint8; the range of the type, or [0, 1], becomes [0, 255]."""
    if pixels.dtype.kind == "u" and pixels.dtype.itemsize == 2:
        return ((pixels.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    low, high = float(pixels.min()), float(pixels.max())
    if not (np.isfinite(low) and np.isfinite(high)) or low < 0:
        raise ImageProblem(name, "unsupported format", "negative or non-finite pixel values")
    small, large = (1.0, 255.0) if pixels.dtype.kind == "f" else (65535.0, 2147483647.0)
    whole = small if high <= small else large
    if high > whole:
        raise ImageProblem(name, "unsupported format", "pixel values over 255")
    return np.rint(pixels.astype(np.float64) * (255.0 / whole)).astype(np.uint8)


def resize(
    image: Image.Image | NDArray[np.uint8], size: tuple[int, int], interpolation: Interpolation = "bilinear"
) -> NDArray[np.uint8]:
    """Resize with antialiased filtering.

    Args:
        image: an RGB image, or (H, W, 3) uint8.
        size: (height, width) to reach.
        interpolation: "bilinear" or "bicubic".

    Returns:
        (height, width, 3) uint8, contiguous.
    """
    import torch
    from torch.nn import functional

    pixels = np.asarray(image, dtype=np.uint8)
    if not pixels.flags.writeable:
        pixels = pixels.copy()  # torch does not wrap read-only memory without a warning
    if pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(f"image must be RGB (H, W, 3), not {pixels.shape}")
    if pixels.shape[:2] == tuple(size):
        return np.array(pixels)  # never the caller's own memory
    # a batch of one first: only so are the strides those of channels last, for which torch need not repack the pixels
    planes = torch.from_numpy(pixels)[None].permute(0, 3, 1, 2)
    scaled = functional.interpolate(planes, size=tuple(size), mode=interpolation, antialias=True, align_corners=False)
    return np.ascontiguousarray(scaled[0].permute(1, 2, 0).numpy())


def normalise(pixels: Tensor, mean: Sequence[float] = CLIP_MEAN, std: Sequence[float] = CLIP_STD) -> Tensor:
    """Scale to [0, 1], then subtract the mean and divide by the deviation of each channel.

    Args:
        pixels: (B, 3, H, W) uint8.
        mean: three channel means in [0, 1].
        std: three channel deviations, > 0.

    Returns:
        (B, 3, H, W) float32.
    """
    import torch

    middle = torch.tensor(mean, dtype=torch.float32, device=pixels.device).view(1, 3, 1, 1)
    spread = torch.tensor(std, dtype=torch.float32, device=pixels.device).view(1, 3, 1, 1)
    return pixels.float().div_(255.0).sub_(middle).div_(spread)


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """From image files to the tensor an encoder takes; stored with every model.

    Attributes:
        image_size: (height, width) in pixels.
        mean: channel means for pixels in [0, 1].
        std: channel deviations.
        interpolation: how images are resized for evaluation and search.
    """

    image_size: tuple[int, int]
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD
    interpolation: Interpolation = "bilinear"

    def __post_init__(self) -> None:
        if min(self.image_size) < 1:
            raise ConfigError(f"image_size must be two positive integers (height, width), not {self.image_size!r}")
        if min(self.std) <= 0:
            raise ConfigError(f"std must be positive, not {self.std!r}")
        if self.interpolation not in get_args(Interpolation):
            allowed = " or ".join(get_args(Interpolation))
            raise ConfigError(f"interpolation must be {allowed}, not {self.interpolation!r}")

    def __call__(self, images: Sequence[Path | str | Image.Image]) -> Tensor:
        """Read where needed, resize and normalise: B images -> (B, 3, H, W) float32.

        Raises:
            ImageProblem: a file cannot be read.
        """
        return normalise(self.pixels(images), self.mean, self.std)

    def pixels(self, images: Sequence[Path | str | Image.Image]) -> Tensor:
        """Read where needed and resize: B images -> (B, 3, H, W) uint8."""
        import torch

        height, width = self.image_size
        stack = np.empty((len(images), height, width, 3), dtype=np.uint8)
        for position, image in enumerate(images):
            loaded = image.convert("RGB") if isinstance(image, Image.Image) else read_image(image)
            stack[position] = resize(loaded, self.image_size, self.interpolation)
        return torch.from_numpy(stack).permute(0, 3, 1, 2).contiguous()

    def to_json(self) -> dict[str, list[float] | list[int] | str]:
        """A mapping of plain values for a JSON file; bilinear, the rule, is not mentioned."""
        tree: dict[str, list[float] | list[int] | str]
        tree = {"image_size": list(self.image_size), "mean": list(self.mean), "std": list(self.std)}
        return tree if self.interpolation == "bilinear" else {**tree, "interpolation": self.interpolation}

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> Preprocessing:
        """The inverse of `to_json`.

        Raises:
            ConfigError: a key is missing or unknown, or a value is not allowed.
        """
        if set(tree) - {"interpolation"} != {"image_size", "mean", "std"}:
            raise ConfigError(f"preprocessing has the keys {sorted(tree)}; wanted: image_size, mean, std")
        try:
            height, width = tree["image_size"]
            (m0, m1, m2), (s0, s1, s2) = tree["mean"], tree["std"]
            mean, std = (float(m0), float(m1), float(m2)), (float(s0), float(s1), float(s2))
        except (TypeError, ValueError):
            raise ConfigError("preprocessing: image_size needs 2 numbers, mean and std 3 each") from None
        return cls((int(height), int(width)), mean, std, tree.get("interpolation", "bilinear"))
