"""What the engine asks of the weights, and refuses."""

from __future__ import annotations

import pytest

from lmflow_core.api import LoadPlan, Quantization, RequestError
from lmflow_deepspeed.engine import DeepSpeedEngine
from lmflow_deepspeed.options import DeepSpeedOptions

pytest.importorskip("deepspeed")


def _plan(stage: int, plan: LoadPlan) -> LoadPlan:
    return DeepSpeedEngine(DeepSpeedOptions(zero_stage=stage)).plan(plan)


def _cpu(**more: object) -> LoadPlan:
    return LoadPlan(**{"dtype": "float32", "device": "cpu", **more})  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def on_a_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")


@pytest.mark.parametrize(("stage", "state", "weights"), [(0, False, False), (1, True, False), (3, True, True)])
def test_stages_spread_more_and_more(stage: int, state: bool, weights: bool) -> None:
    plan = _plan(stage, _cpu())
    assert (plan.sharded_state, plan.sharded) == (state, weights)


def test_float32_is_kept_beside_half_precision_by_deepspeed() -> None:
    plan = _plan(1, _cpu(compute_dtype="bfloat16"))
    assert (plan.dtype, plan.compute_dtype) == ("bfloat16", None)
    # It keeps them in one piece in any stage.
    assert _plan(0, _cpu(dtype="bfloat16")).sharded_state


def test_quantised_weights_are_not_spread() -> None:
    assert _plan(2, _cpu(quantization=Quantization("nf4"))).quantization == Quantization("nf4")
    with pytest.raises(RequestError, match="ZeRO stage 3 cannot spread weights of the form nf4"):
        _plan(3, _cpu(quantization=Quantization("nf4")))
