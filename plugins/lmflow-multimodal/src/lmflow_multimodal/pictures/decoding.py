"""Bytes to pixels. Only decoders of a short list are ever reached, and each is chosen here by the first bytes.

Pillow's own ``Image.open`` would try every format it knows, and warns of large pictures through filters that all
threads share. TIFF is not on the list: its files need a library of many rare decoders, and few data sets hold any.
"""

from __future__ import annotations

import io
from collections.abc import Callable

from PIL import BmpImagePlugin, GifImagePlugin, Image, ImageFile, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

_Opener = Callable[[io.BytesIO], ImageFile.ImageFile]

KINDS = "PNG, JPEG, WebP, GIF or BMP"
_DECODERS: tuple[tuple[bytes, _Opener], ...] = (
    (b"\x89PNG\r\n\x1a\n", PngImagePlugin.PngImageFile),
    (b"\xff\xd8\xff", JpegImagePlugin.JpegImageFile),
    (b"GIF87a", GifImagePlugin.GifImageFile),
    (b"GIF89a", GifImagePlugin.GifImageFile),
    (b"BM", BmpImagePlugin.BmpImageFile),
)
# What is often found in the place of one of these, so that the message can name it.
_OTHERS = (
    (b"II*\0", "a TIFF"), (b"MM\0*", "a TIFF"), (b"II+\0", "a TIFF"), (b"MM\0+", "a TIFF"), (b"%PDF", "a PDF"),
    (b"8BPS", "a PSD"), (b"\0\0\1\0", "an ICO"), (b"<svg", "an SVG"), (b"<?xml", "an XML or SVG"),
    (b"<!doctype svg", "an SVG"), (b"<!doctype html", "an HTML"), (b"<html", "an HTML"),
    (b"version https://git-lfs", "a Git LFS pointer"),
)  # fmt: skip
_BRANDS = {b"avif": "an AVIF", b"avis": "an AVIF", b"heic": "a HEIC", b"heix": "a HEIC", b"mif1": "a HEIF"}
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION = 0x0112


def decoded(content: bytes, max_pixels: int) -> Image.Image:
    """Return the pixels of a picture in RGB, turned as its EXIF data says; of several frames the first.

    Raises:
        ValueError: it is none of the kinds that are read, too large, or damaged.
    """
    opener = _opener(content)
    try:
        if opener is WebPImagePlugin.WebPImageFile:
            _check_size(_webp_size(content), max_pixels)  # its decoder takes memory for all pixels when it opens
        with opener(io.BytesIO(content)) as file:
            _check_size(file.size, max_pixels)
            file.load()
            return _turned(_as_rgb(file), _orientation(file))
    except _TooLargeError:
        raise
    except Exception as error:  # decoders raise whatever they stumble over
        raise ValueError(f"is damaged: {str(error).splitlines()[0] if str(error) else type(error).__name__}") from error


class _TooLargeError(ValueError):
    """A picture with more pixels than are decoded."""


def _opener(content: bytes) -> _Opener:
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return WebPImagePlugin.WebPImageFile
    for beginning, opener in _DECODERS:
        if content.startswith(beginning):
            return opener
    if not content:
        raise ValueError("is empty")
    raise ValueError(f"is {_other(content) or 'not an image'}: it must be a {KINDS}")


def _other(content: bytes) -> str | None:
    if content[4:8] == b"ftyp" and content[8:12] in _BRANDS:
        return f"{_BRANDS[content[8:12]]} file"
    text = content[:200].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for beginning, name in _OTHERS:
        if content.startswith(beginning) or text.startswith(beginning.lower()):
            return f"{name} file"
    return None


def _check_size(size: tuple[int, int], most: int) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise ValueError(f"its header tells a size of {width} x {height}")
    if width * height > most:
        raise _TooLargeError(f"has {width} x {height} pixels, more than the {most:,} that are decoded")


def _webp_size(content: bytes) -> tuple[int, int]:
    """Return width and height from the header of a WebP file (RFC 9649), in each of its three forms."""
    form, data = content[12:16], content[20:]
    if form == b"VP8X":
        return _number(data[4:7]) + 1, _number(data[7:10]) + 1
    if form == b"VP8L":
        bits = _number(data[1:5])
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return _number(data[6:8]) & 0x3FFF, _number(data[8:10]) & 0x3FFF


def _number(little_endian: bytes) -> int:
    return int.from_bytes(little_endian, "little")


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # Sixteen bits in one channel; Pillow would cut them off at 255 instead of scaling them.
        return image.convert("I").point(lambda value: value * (255 / 65535)).convert("L").convert("RGB")
    if ("A" in image.mode.upper() and image.mode != "LAB") or "transparency" in image.info:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def _orientation(file: ImageFile.ImageFile) -> int:
    try:
        return int(file.getexif().get(_ORIENTATION, 1))
    except Exception:  # a picture is not worse for what a camera wrote beside it
        return 1


def _turned(image: Image.Image, orientation: int) -> Image.Image:
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)
