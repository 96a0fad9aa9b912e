"""Examples that teach nothing are left out, counted and told once."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from lmflow_core.api import DataError, EncodedExample, EncodedSequence
from lmflow_core.testing.jobs import rows_of
from lmflow_transformers.api import LeftOut, Selected, check_different, keep_useful


def _pair(chosen: Sequence[int], rejected: Sequence[int]) -> EncodedExample:
    return EncodedExample((EncodedSequence(chosen, chosen), EncodedSequence(rejected, rejected)))


_DATA = rows_of([_pair([1, 2], [1, 3]), _pair([4], [4]), _pair([5], [5, 6]), _pair([7, 7], [7, 7])])


def _different(position: int) -> int:
    if position == 2:
        raise LeftOut("it is the third")
    check_different(*_DATA[position].sequences)
    return position


def test_what_is_left_is_told_with_its_reasons(capsys: pytest.CaptureFixture[str]) -> None:
    assert keep_useful(_DATA, _different, "pairs", told=True) == [0]
    reasons = "2 as both answers are the same, 1 as it is the third"
    assert capsys.readouterr().err == f"lmflow: 3 of 4 pairs left out: {reasons}\n"
    assert keep_useful(_DATA, _different, "pairs", told=False) == [0]
    assert keep_useful(_DATA, str, "pairs", told=True) == ["0", "1", "2", "3"]
    assert capsys.readouterr().err == ""
    with pytest.raises(DataError, match="none of 4 pairs is left: 1 as never"):
        keep_useful(_DATA, _never, "pairs", told=True)


def _never(position: int) -> int:
    raise LeftOut("never" if position == 0 else "no more")


def test_some_examples_are_data_themselves() -> None:
    some = Selected(_DATA, [2, 0])
    assert len(some) == 2
    assert [list(sequence.input_ids) for sequence in some[0].sequences] == [[5], [5, 6]]
    assert some.lengths() == [3, 4]
