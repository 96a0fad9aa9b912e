"""``lmflow data check`` finds images that are missing or broken, by row, and without a model."""

from __future__ import annotations

import base64
import io
import json
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from PIL import Image

from lmflow_core.testing.fixtures import CliResult

Cli = Callable[..., CliResult]
_FORMS = ("PNG", "JPEG", "GIF", "WEBP", "BMP")


def _content(form: str, **how: object) -> bytes:
    noise = Image.frombytes("RGB", (40, 40), bytes(i * i % 251 for i in range(4800)))
    written = io.BytesIO()
    noise.save(written, form, **how)
    return written.getvalue()


def _data(folder: Path, sources: Sequence[str]) -> Path:
    file = folder / "data.jsonl"
    rows = (
        {"messages": [{"role": "user", "content": [{"type": "image", "image": source}]},
                      {"role": "assistant", "content": "A cat."}]}
        for source in sources
    )  # fmt: skip
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return file


@pytest.mark.parametrize("form", _FORMS)
@pytest.mark.usefixtures("other_plugins")
def test_a_whole_image_is_good_and_one_cut_off_is_not(lmflow_cli: Cli, tmp_path: Path, form: str) -> None:
    content = _content(form)
    (tmp_path / "whole").write_bytes(content)
    (tmp_path / "padded").write_bytes(content + b"\0\0")
    # A preview within the headers has an end of its own.
    exif = Image.Exif()
    exif[0x9286] = b"\xff\xd8\xff\xd9"
    for at, kept in enumerate((len(content) - 3, len(content) // 2, 60)):
        cut = _content(form, exif=exif) if form == "JPEG" else content
        (tmp_path / f"cut{at}").write_bytes(cut[: kept if form != "JPEG" or kept > 60 else 700])
    result = lmflow_cli("data", "check", _data(tmp_path, ["whole", "padded", "cut0", "cut1", "cut2"]), "--json")
    report = result.json()
    assert (result.status, report["images"]) == (2, 5)
    assert [bad["row"] for bad in report["bad_rows"]] == [3, 4, 5]
    assert all("is damaged: it ends before the image does" in bad["problem"] for bad in report["bad_rows"])


@pytest.mark.usefixtures("other_plugins")
def test_what_is_in_the_place_of_an_image_is_named_by_row(lmflow_cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "page.png").write_text("<html>404</html>", encoding="utf-8")
    (tmp_path / "empty.png").touch()
    (tmp_path / "folder.png").mkdir()
    good = "data:image/png;base64," + base64.b64encode(_content("PNG")).decode()
    named = {
        good: None,
        "missing.png": "cannot be read: no such file or directory",
        "page.png": "is not an image: it must be a PNG, JPEG, WebP, GIF or BMP",
        "empty.png": "is empty",
        "folder.png": "is not a file",
        "data:image/png;base64,A": "has an address whose base64 is wrong",
        "file:///etc/passwd": "has an address that is not read",
        "http://host/a.png": None,
        "/etc/hostname": "--image-folder DIR",
    }
    result = lmflow_cli("data", "check", _data(tmp_path, list(named)), "--json")
    bad = {row["row"]: row["problem"] for row in result.json()["bad_rows"]}
    expected = {row: problem for row, problem in enumerate(named.values(), start=1) if problem}
    assert bad.keys() == expected.keys()
    assert [row for row, problem in expected.items() if problem not in bad[row]] == []


@pytest.mark.usefixtures("other_plugins")
def test_an_image_that_many_rows_show_is_counted_once(lmflow_cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/a.png").write_bytes(_content("PNG"))
    (tmp_path / "data").mkdir()
    file = _data(tmp_path / "data", ["a.png"] * 3)
    result = lmflow_cli("data", "check", file, "--image-folder", tmp_path / "elsewhere")
    assert result.status == 0, result.stderr
    assert "3 examples, 1 images, 0 bad" in result.stdout
    result = lmflow_cli("data", "check", file)
    assert (result.status, "3 examples, 1 images, 3 bad" in result.stdout) == (2, True)


@pytest.mark.usefixtures("other_plugins")
def test_a_model_that_sees_opens_each_image_as_it_will(
    lmflow_cli: Cli, tmp_path: Path, seeing_model: Callable[[str], Path]
) -> None:
    huge = b"IHDR" + struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    chunks = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (huge, b"IEND"))
    (tmp_path / "huge.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    (tmp_path / "good.png").write_bytes(_content("PNG"))
    file = _data(tmp_path, ["good.png", "huge.png", "http://127.0.0.1/a.png"])
    assert lmflow_cli("data", "check", file).status == 0
    line = ("data", "check", file, "--model", seeing_model("llava"), "--json")
    [huge_row, fetched] = lmflow_cli(*line).json()["bad_rows"]
    assert (huge_row["row"], fetched["row"]) == (2, 3)
    assert "has 100000 x 100000 pixels, more than the 64,000,000" in huge_row["problem"]
    assert "add --fetch-images" in fetched["problem"]
    [_, fetched] = lmflow_cli(*line, "--fetch-images").json()["bad_rows"]
    assert "127.0.0.1 is within a private network" in fetched["problem"]


@pytest.mark.usefixtures("other_plugins")
def test_a_preview_shows_where_images_stand(
    lmflow_cli: Cli, tmp_path: Path, seeing_model: Callable[[str], Path]
) -> None:
    (tmp_path / "good.png").write_bytes(_content("PNG"))
    rows = [{"conversations": [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "The dog"}],
             "image": "good.png"}]  # fmt: skip
    file = tmp_path / "data.json"
    file.write_text(json.dumps(rows), encoding="utf-8")
    line = ("data", "preview", file, "--model", seeing_model("llava"))
    assert "<|im_start|>user\n[good.png: 4 tokens]\nWhat?<|im_end|>\n" in lmflow_cli(*line).stdout
    [media] = lmflow_cli(*line, "--json").json()[0]["sequences"][0]["media"]
    assert (media["source"], media["tokens"]) == (str(tmp_path / "good.png"), 4)


def test_a_model_that_takes_no_images_cannot_open_them(lmflow_cli: Cli, tmp_path: Path, tiny_model: Path) -> None:
    result = lmflow_cli("data", "check", _data(tmp_path, ["a.png"]), "--model", tiny_model)
    assert (result.status, "takes no images: leave --model out" in result.stderr) == (2, True)
