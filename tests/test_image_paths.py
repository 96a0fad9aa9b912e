"""Where images may lie: beside their data file or in a folder that was allowed, whatever rows say."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmflow_core.contracts.examples import Conversation, Example, ImagePart, ImageText, Judged, Message, Preference
from lmflow_core.data.image_paths import ImageFolders, image_sources

_LEADS_OUT = "--image-folder DIR"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a data file with an image beside it, and another in a folder beside its own."""
    for name in ("mine/a.png", "mine/deep/b.png", "other/c.png", "other/a.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    return tmp_path / "mine/data.json"


def _placed(source: str, data: Path, *allowed: Path) -> str:
    return ImageFolders(data, allowed).placed(ImageText((source,), "t")).images[0]


@pytest.mark.parametrize("source", ["a.png", "deep/b.png", "deep/../a.png", "missing.png", "deep/./b.png"])
def test_images_beside_the_data_are_found(data: Path, source: str) -> None:
    assert Path(_placed(source, data)).resolve() == (data.parent / source).resolve()
    assert _placed(str(data.parent / source), data) == str(data.parent / source)


@pytest.mark.parametrize("source", ["../other/c.png", "deep/../../other/c.png", "/etc/passwd", "../none.png", "/"])
def test_a_path_that_leads_out_is_refused(data: Path, source: str) -> None:
    with pytest.raises(ValueError, match=_LEADS_OUT):
        _placed(source, data)


def test_a_folder_with_the_same_beginning_is_another(data: Path, tmp_path: Path) -> None:
    (tmp_path / "mine2").mkdir()
    (tmp_path / "mine2/d.png").write_bytes(b"x")
    with pytest.raises(ValueError, match=_LEADS_OUT):
        _placed(str(tmp_path / "mine2/d.png"), data)


def test_a_link_that_leads_out_is_refused_and_one_within_is_not(data: Path, tmp_path: Path) -> None:
    (data.parent / "out.png").symlink_to("../other/c.png")
    (data.parent / "folder").symlink_to("../other")
    (data.parent / "in.png").symlink_to("deep/b.png")
    (data.parent / "circle.png").symlink_to("circle.png")
    assert _placed("in.png", data) == str(data.parent / "in.png")
    with pytest.raises(ValueError, match=f"'out.png' is a link to {tmp_path}/other/c.png, outside of {data.parent}: "):
        _placed("out.png", data)
    with pytest.raises(ValueError, match=_LEADS_OUT):
        _placed("folder/c.png", data)
    assert _placed("folder/c.png", data, tmp_path / "other") == str(data.parent / "folder/c.png")
    with pytest.raises(ValueError, match=r"image 'circle\.png'"):
        _placed("circle.png", data)


def test_data_behind_a_link_still_has_its_images(data: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("mine")
    assert _placed("a.png", tmp_path / "link/data.json") == str(tmp_path / "link/a.png")


def test_a_folder_may_be_allowed(data: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    assert _placed("c.png", data, other) == str(other / "c.png")
    assert _placed(str(other / "c.png"), data, other) == str(other / "c.png")
    # Beside the data file goes first.
    assert _placed("a.png", data, other) == str(data.parent / "a.png")
    with pytest.raises(ValueError, match=f"outside of {data.parent}, {other}: "):
        _placed("/etc/passwd", data, other)


@pytest.mark.parametrize("source", ["http://host/a.png", "HTTPS://host/../a.png", "data:image/png;base64,aaaa"])
def test_addresses_stay_as_they_are(data: Path, source: str) -> None:
    assert _placed(source, data) == source


def test_a_name_that_no_file_can_have_is_refused(data: Path) -> None:
    for name in ("a\0b.png", "a" * 5000):
        with pytest.raises(ValueError, match="the image 'a"):
            _placed(name, data)


_SHOWN = Message("user", ("Look: ", ImagePart("a.png"), ImagePart("../other/c.png")))
_TALK = Conversation((_SHOWN, Message("assistant", "Yes")))


@pytest.mark.parametrize(
    "example", [_TALK, Preference(_TALK, _TALK), Judged(_TALK, True), ImageText(("a.png", "../other/c.png"), "t")]
)
def test_every_kind_of_example_is_looked_through(data: Path, tmp_path: Path, example: Example) -> None:
    times = 2 if isinstance(example, Preference) else 1
    assert list(image_sources(example)) == ["a.png", "../other/c.png"] * times
    with pytest.raises(ValueError, match=_LEADS_OUT):
        ImageFolders(data).placed(example)
    placed = ImageFolders(data, (tmp_path / "other",)).placed(example)
    assert list(image_sources(placed)) == [str(data.parent / "a.png"), str(data.parent / "../other/c.png")] * times
