"""Opening pictures: whatever is in the place of one is a ValueError that tells why, and the right pixels come out."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from lmflow_multimodal.pictures import PictureLimits, open_picture

_RED, _GREEN, _BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def _corners(mode: str = "RGB") -> Image.Image:
    """A picture of 3 x 2: red, green and blue above, white below."""
    image = Image.new("RGB", (3, 2), "white")
    for at, colour in enumerate((_RED, _GREEN, _BLUE)):
        image.putpixel((at, 0), colour)
    return image.convert(mode)


def _bytes(image: Image.Image, form: str = "PNG", **how: object) -> bytes:
    written = io.BytesIO()
    image.save(written, form, **how)
    return written.getvalue()


def _file(folder: Path, content: bytes, name: str = "picture") -> str:
    path = folder / name
    path.write_bytes(content)
    return str(path)


def _refused(source: str, limits: PictureLimits | None = None) -> str:
    with pytest.raises(ValueError, match="the image ") as caught:
        open_picture(source, limits)
    return str(caught.value)


@pytest.mark.parametrize("form", ["PNG", "BMP", "GIF", "WEBP"])
def test_each_kind_is_read_by_its_first_bytes(tmp_path: Path, form: str) -> None:
    content = _bytes(_corners(), form, **({"lossless": True} if form == "WEBP" else {}))
    picture = open_picture(_file(tmp_path, content))
    assert picture.digest == hashlib.sha256(content).hexdigest()
    assert (picture.image.mode, picture.image.size) == ("RGB", (3, 2))
    assert [picture.image.getpixel((at, 0)) for at in range(3)] == [_RED, _GREEN, _BLUE]


def test_a_jpeg_is_read(tmp_path: Path) -> None:
    image = open_picture(_file(tmp_path, _bytes(Image.new("RGB", (16, 8), (200, 30, 30)), "JPEG"))).image
    assert image.size == (16, 8)
    assert max(abs(a - b) for a, b in zip(image.getpixel((5, 5)), (200, 30, 30), strict=True)) < 4


def test_an_address_may_hold_the_picture() -> None:
    content = _bytes(_corners())
    picture = open_picture("data:image/png;base64," + base64.b64encode(content).decode())
    assert picture.digest == hashlib.sha256(content).hexdigest()
    assert picture.image.tobytes() == _corners().tobytes()


_CROSS = {1: "RG/BW", 2: "GR/WB", 3: "WB/GR", 4: "BW/RG", 5: "RB/GW", 6: "BR/WG", 7: "WG/BR", 8: "GW/RB"}
_LETTERS = {_RED: "R", _GREEN: "G", _BLUE: "B", (255, 255, 255): "W"}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_the_picture(tmp_path: Path, orientation: int) -> None:
    # What each number means is told by EXIF as where the first row and column are to be seen.
    image = Image.new("RGB", (2, 2), "white")
    for at, colour in {(0, 0): _RED, (1, 0): _GREEN, (0, 1): _BLUE}.items():
        image.putpixel(at, colour)
    exif = Image.Exif()
    exif[0x0112] = orientation
    seen = open_picture(_file(tmp_path, _bytes(image, exif=exif))).image
    rows = ["".join(_LETTERS[seen.getpixel((x, y))] for x in range(2)) for y in range(2)]
    assert "/".join(rows) == _CROSS[orientation]


def test_exif_that_is_damaged_turns_nothing(tmp_path: Path) -> None:
    content = _bytes(_corners(), exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert open_picture(_file(tmp_path, content)).image.tobytes() == _corners().tobytes()


def test_print_colours_become_those_of_a_screen(tmp_path: Path) -> None:
    image = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    seen = open_picture(_file(tmp_path, _bytes(image, "JPEG", quality=100))).image.getpixel((4, 4))
    assert max(abs(a - b) for a, b in zip(seen, _RED, strict=True)) < 6


def test_sixteen_bits_are_scaled_not_cut_off(tmp_path: Path) -> None:
    image = Image.new("I;16", (3, 1))
    for at, value in enumerate((0, 32896, 65535)):
        image.putpixel((at, 0), value)
    seen = open_picture(_file(tmp_path, _bytes(image))).image
    assert [seen.getpixel((at, 0)) for at in range(3)] == [(0, 0, 0), (128, 128, 128), (255, 255, 255)]


def test_what_is_seen_through_is_put_on_white(tmp_path: Path) -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putpixel((1, 0), 1)
    through = open_picture(_file(tmp_path, _bytes(palette, transparency=0))).image
    assert [through.getpixel((at, 0)) for at in range(2)] == [(255, 255, 255), _BLUE]
    half = Image.new("RGBA", (1, 1), (0, 0, 0, 51))
    assert open_picture(_file(tmp_path, _bytes(half))).image.getpixel((0, 0)) == (204, 204, 204)
    assert open_picture(_file(tmp_path, _bytes(Image.new("LA", (1, 1), (0, 0))))).image.getpixel((0, 0)) == (255,) * 3


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG"])
def test_of_one_that_moves_the_first_frame_is_seen(tmp_path: Path, form: str) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in (_RED, _BLUE)]
    how = {"lossless": True} if form == "WEBP" else {}
    content = _bytes(frames[0], form, save_all=True, append_images=frames[1:], duration=100, **how)
    assert open_picture(_file(tmp_path, content)).image.getpixel((1, 1)) == _RED


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_a_file_that_was_cut_off_is_damaged(tmp_path: Path, form: str) -> None:
    noise = Image.frombytes("RGB", (40, 40), bytes(i * i % 251 for i in range(4800)))
    content = _bytes(noise, form)
    for kept in (len(content) // 2, 30):
        assert "is damaged" in _refused(_file(tmp_path, content[:kept]))


def _png_header(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"\0" * 10_000)
    chunks = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, data))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _webp_header(width: int, height: int) -> bytes:
    body = b"VP8X" + struct.pack("<I", 10) + b"\0\0\0\0"
    body += (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


_BOMBS = {
    "png": (_png_header(100_000, 100_000), "100000 x 100000"),
    "webp": (_webp_header(100_000, 100_000), "100000 x 100000"),
    "gif": (b"GIF89a" + struct.pack("<HHBBB", 60_000, 60_000, 0, 0, 0)
            + b"," + struct.pack("<HHHHB", 0, 0, 60_000, 60_000, 0) + b"\x02\x02\x44\x01\x00;", "60000 x 60000"),
    "bmp": (b"BM" + struct.pack("<IHHI", 100, 0, 0, 54)
            + struct.pack("<IiiHHIIiiII", 40, 100_000, 100_000, 1, 24, 0, 0, 0, 0, 0, 0), "100000 x 100000"),
}  # fmt: skip


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("form", _BOMBS)
def test_a_bomb_is_refused_by_its_header(tmp_path: Path, form: str) -> None:
    content, size = _BOMBS[form]
    said = _refused(_file(tmp_path, content))
    assert f"has {size} pixels, more than the 64,000,000 that are decoded" in said


@pytest.mark.parametrize(("form", "lossless"), [("WEBP", True), ("WEBP", False), ("PNG", None), ("JPEG", None)])
def test_the_limit_of_pixels_is_exact(tmp_path: Path, form: str, lossless: bool | None) -> None:
    source = _file(
        tmp_path, _bytes(Image.new("RGB", (30, 20)), form, **({} if lossless is None else {"lossless": lossless}))
    )
    assert open_picture(source, PictureLimits(max_pixels=600)).image.size == (30, 20)
    assert "has 30 x 20 pixels, more than the 599" in _refused(source, PictureLimits(max_pixels=599))


def test_the_limit_of_bytes_holds_for_files_and_addresses(tmp_path: Path) -> None:
    content = _bytes(_corners())
    address = "data:image/png;base64," + base64.b64encode(content).decode()
    for source in (_file(tmp_path, content), address):
        assert open_picture(source, PictureLimits(max_bytes=len(content))).image.size == (3, 2)
        assert f"more than the {len(content) // 2} that are read" in _refused(
            source, PictureLimits(max_bytes=len(content) // 2)
        )


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is empty"),
        (b"just a text", "is not an image: it must be a PNG, JPEG, WebP, GIF or BMP"),
        (b'\xef\xbb\xbf\n<svg xmlns="http://www.w3.org/2000/svg"/>', "is an SVG file"),
        (b'<?xml version="1.0"?><svg/>', "is an XML or SVG file"),
        (_bytes(_corners(), "TIFF"), "is a TIFF file"),
        (_bytes(_corners(), "ICO"), "is an ICO file"),
        (_bytes(_corners(), "PPM"), "is not an image"),
        (_bytes(_corners(), "JPEG2000"), "is not an image"),
        (b"\0\0\0\x20ftypavif", "is an AVIF file"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "is a Git LFS pointer file"),
    ],
)  # fmt: skip
def test_what_is_no_picture_is_named(tmp_path: Path, content: bytes, why: str) -> None:
    assert f"'{tmp_path}/picture' {why}" in _refused(_file(tmp_path, content))


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    assert "cannot be read: no such file" in _refused(str(tmp_path / "none.png"))
    assert "is a folder" in _refused(str(tmp_path))
    assert "is a device" in _refused("/dev/zero")
    assert "null" in _refused("a\0b.png")
    os.mkfifo(tmp_path / "pipe")
    assert "is a pipe" in _refused(str(tmp_path / "pipe"))


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("file:///etc/passwd", "an address of the kind file:"),
        ("FILE:/etc/passwd", "an address of the kind file:"),
        ("ftp://host/a.png", "an address of the kind ftp:"),
        ("http://host/a.png", "add --fetch-images"),
        ("HTTPS://host/a.png", "add --fetch-images"),
        ("data:text/plain;base64,aaaa", "must begin with data:image/"),
        ("data:image/png,abc", "must begin with data:image/"),
        ("data:image/png;base64,a!b", "base64 is wrong"),
        ("data:image/png;base64,YWJj", "is not an image"),
    ],
)
def test_addresses_that_hold_none_are_refused(address: str, why: str) -> None:
    assert why in _refused(address)


def test_a_long_address_is_not_told_whole() -> None:
    assert len(_refused("data:image/png;base64," + "A" * 100_000)) < 300


def test_threads_open_pictures_at_once(tmp_path: Path) -> None:
    sources, colours = [], []
    for at in range(24):
        colours.append((at * 10, 255 - at * 10, at))
        sources.append(_file(tmp_path, _bytes(Image.new("RGB", (64, 64), colours[-1])), f"{at}.png"))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda source: open_picture(source).image.getpixel((9, 9)), sources * 4))
    assert found == colours * 4


def test_nothing_global_is_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import ImageFile

    before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, sorted(Image.OPEN), sorted(Image.ID))
    open_picture(_file(tmp_path, _bytes(_corners())))
    _refused(_file(tmp_path, _BOMBS["png"][0]))
    assert (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, sorted(Image.OPEN), sorted(Image.ID)) == before
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # a program around this one may lift Pillow's own limit
    assert "has 100000 x 100000 pixels" in _refused(_file(tmp_path, _BOMBS["png"][0]))
