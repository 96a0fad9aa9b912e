"""The image that goes with batches without any, where processes compute in step."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from lmflow_core.api import IGNORE, EncodedExample, EncodedSequence, LoadPlan, Media, RequestError, World
from lmflow_transformers.training.accompanying import accompanied, accompanying_image

_IMAGE = Media("photo.png", "digest", start=2, tokens=3)
_SHOWN = EncodedExample((EncodedSequence([1, 2, 9, 9, 9, 4], [IGNORE] * 5 + [4], (_IMAGE,)),))
_TEXT = EncodedExample((EncodedSequence([1, 2, 3], [IGNORE, 2, 3]),))


def _job(processes: int = 2, **plan: bool) -> Any:
    model = SimpleNamespace(media_inputs=object(), plan=LoadPlan(**plan))
    return SimpleNamespace(world=World(size=processes), model=model)


@pytest.mark.parametrize("spread", ["sharded", "sharded_state"])
def test_the_first_image_alone_accompanies_batches_of_text(spread: str) -> None:
    image = accompanying_image(_job(**{spread: True}), [[_TEXT], [_TEXT, _SHOWN]], isolated=True)
    assert image == EncodedSequence([9, 9, 9], [IGNORE] * 3, (Media("photo.png", "digest", start=0, tokens=3),))
    assert accompanied([_TEXT], image) is image
    assert accompanied([_TEXT, _SHOWN], image) is None


def test_none_is_needed_of_one_process_without_shards_or_without_images() -> None:
    data = [[_TEXT, _SHOWN]]
    assert accompanying_image(_job(1, sharded=True), data, isolated=True) is None
    assert accompanying_image(_job(), data, isolated=True) is None
    assert accompanying_image(_job(sharded=True), [[_TEXT]], isolated=True) is None


def test_sequences_that_go_alone_all_have_images_or_none() -> None:
    with pytest.raises(RequestError, match="some rows have images and others none"):
        accompanying_image(_job(sharded=True), [[_SHOWN, _TEXT]], isolated=False)
    assert accompanying_image(_job(sharded=True), [[_SHOWN]], isolated=False) is not None
    assert accompanying_image(_job(sharded=True), [[_TEXT]], isolated=False) is None
