"""Sliding windows: every token scored once, with as much before it as there is room for."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lmflow_core.api import IGNORE, DataError, EncodedSequence, Media
from lmflow_core.testing.fixtures import CliResult
from lmflow_core.workflows.windows import windows

Cli = Callable[..., CliResult]


def _document(length: int) -> EncodedSequence:
    return EncodedSequence(list(range(length)), list(range(length)))


@pytest.mark.parametrize("length", [1, 2, 9, 10, 11, 13, 14, 37])
@pytest.mark.parametrize(("context", "stride"), [(10, 4), (10, 9), (10, 1), (64, 8)])
def test_every_token_but_the_first_is_scored_once_with_room_before_it(length: int, context: int, stride: int) -> None:
    scored: list[int] = []
    for window in windows([_document(length)], context, stride):
        assert len(window.input_ids) == min(context, length)
        for place, label in enumerate(window.labels):
            if place and label != IGNORE:
                assert label == window.input_ids[place]
                assert place >= min(label, context - stride)
                scored.append(label)
    assert scored == list(range(1, length))


def test_prompts_are_not_scored_and_documents_stay_apart() -> None:
    prompted = EncodedSequence([1, 2, 3, 4], [IGNORE, IGNORE, 3, 4])
    found = list(windows([prompted, EncodedSequence([7, 8], [7, 8])], 3, 1))
    assert found == [
        EncodedSequence([1, 2, 3], [IGNORE, IGNORE, 3]),
        EncodedSequence([2, 3, 4], [IGNORE, IGNORE, 4]),
        EncodedSequence([7, 8], [7, 8]),
    ]


def test_images_are_not_cut_into_windows() -> None:
    shown = EncodedSequence([1, 2, 3], [IGNORE, 2, 3], (Media("a.png", "d", 0, 1),))
    with pytest.raises(DataError, match=r"^data with images cannot be scored in windows: leave out --context$"):
        list(windows([shown], 2, 1))
