from __future__ import annotations

from lmflow_core.api import IGNORE, Encoded
from lmflow_transformers.packing import lay_out


def test_examples_lie_end_to_end_and_never_predict_each_other() -> None:
    laid = lay_out([Encoded([5, 6, 7], [IGNORE, 6, 7]), Encoded([8, 9], [8, 9])])
    assert laid["input_ids"].tolist() == [[5, 6, 7, 8, 9]]
    assert laid["position_ids"].tolist() == [[0, 1, 2, 0, 1]]
    assert laid["shift_labels"].tolist() == [[6, 7, IGNORE, 9, IGNORE]]
    assert laid["cu_seq_lens_q"].tolist() == [0, 3, 5]
