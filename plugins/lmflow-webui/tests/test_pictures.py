"""Which images a page may send, and how they are shown."""

from __future__ import annotations

import json

import pytest

from lmflow_core.api import ImagePart, RequestError
from lmflow_webui.conversations import View
from lmflow_webui.page import _shown
from lmflow_webui.pictures import check_room, read_pictures

PNG = "data:image/png;base64,AAAA"


def test_addresses_that_hold_images_are_taken() -> None:
    assert read_pictures("") == read_pictures("[]") == []
    assert read_pictures(json.dumps([PNG, "data:image/jpeg;base64,AA=="])) == [PNG, "data:image/jpeg;base64,AA=="]


@pytest.mark.parametrize(
    "image",
    [
        *("/etc/passwd", "photo.png", "file:///etc/passwd", "http://a.example/x.png", "https://a.example/x.png", ""),
        *("data:image/svg+xml;base64,AAAA", "data:text/html;base64,AAAA", "data:image/png,AAAA", f"{PNG}\n", f" {PNG}"),
        *(f'{PNG}"><img src=x onerror=alert(1)>', f"{PNG}<", None, 3, [PNG]),
    ],
)
def test_others_are_refused(image: object) -> None:
    with pytest.raises(RequestError, match="an image is of no kind that is shown"):
        read_pictures(json.dumps([PNG, image]))


@pytest.mark.parametrize("text", ["{", '"x"', "{}", "3", "[" * 100_000])
def test_what_is_no_list_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match="an image is of no kind"):
        read_pictures(text)


def test_images_are_bounded() -> None:
    assert len(read_pictures(json.dumps([PNG] * 16))) == 16
    with pytest.raises(RequestError, match="a message takes up to 16 images"):
        read_pictures(json.dumps([PNG] * 17))
    check_room(15, [PNG])
    with pytest.raises(RequestError, match="a conversation shows up to 16 images: reset it"):
        check_room(15, [PNG, PNG])


def test_images_are_shown_beside_texts_that_stay_texts() -> None:
    turns = (("user", (ImagePart(PNG), "<b>")), ("assistant", "<i>"))
    first, second = _shown(View(turns, ""))[0]
    assert first["content"] == f'<img src="{PNG}" alt="image" style="max-height: 16em">&lt;b&gt;'
    assert second["content"] == "&lt;i&gt;"
