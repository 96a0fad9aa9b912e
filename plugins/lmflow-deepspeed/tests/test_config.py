"""The configuration: from options, or from a file that nothing contradicts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lmflow_core.api import LmflowError, RequestError
from lmflow_deepspeed.config import configuration
from lmflow_deepspeed.options import DeepSpeedOptions


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "ds.json"


def _written(file: Path, content: Any) -> DeepSpeedOptions:
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return DeepSpeedOptions(deepspeed=file)


def test_stage_2_spreads_gradients_when_nothing_is_given() -> None:
    config = configuration(DeepSpeedOptions())
    assert config["zero_optimization"] == {"stage": 2}
    assert config["gradient_clipping"] == "auto"


def test_options_say_where_things_wait(tmp_path: Path) -> None:
    options = DeepSpeedOptions(
        zero_stage=3, zero_offload_optimizer="cpu", zero_offload_parameters="nvme", zero_nvme_path=tmp_path
    )
    zero = configuration(options)["zero_optimization"]
    assert zero == {
        "stage": 3,
        "offload_optimizer": {"device": "cpu"},
        "offload_param": {"device": "nvme", "nvme_path": str(tmp_path)},
    }


def test_a_file_of_the_original_is_taken_as_it_is(file: Path) -> None:
    auto = {"stage": 3, "offload_optimizer": {"device": "none"}, "reduce_bucket_size": "auto"}
    params = {"lr": "auto", "betas": "auto", "eps": "auto", "weight_decay": "auto"}
    options = _written(file, {"zero_optimization": auto, "optimizer": {"type": "AdamW", "params": params}})
    config = configuration(options)
    assert config["zero_optimization"] == {"stage": 3, "reduce_bucket_size": "auto"}
    assert "optimizer" not in config


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "is not JSON: Expecting property name"),
        ([1], "must hold an object, not a list"),
        ({"zero_optimization": 3}, "zero_optimization must be an object, not 3"),
        ({"zero_optimization": {"stage": 4}}, "zero_optimization.stage must be 0, 1, 2 or 3, not 4"),
        ({"zero_optimization": {"stage": 3, "offload_param": "cpu"}}, "offload_param must be an object, not 'cpu'"),
        ({"gradient_clipping": "much"}, "gradient_clipping must be a number or 'auto', not 'much'"),
        ({"scheduler": {"type": "WarmupLR"}}, "scheduler: --lr-scheduler-type"),
        ({"optimizer": {"type": "Lamb"}}, "optimizer.type Lamb: --optimizer chooses"),
        ({"optimizer": {"type": "AdamW", "params": {"lr": 1e-4}}}, "optimizer.params.lr is 0.0001: give --lr"),
    ],
)
def test_a_bad_file_is_refused_by_its_key(content: Any, told: str, file: Path) -> None:
    with pytest.raises(RequestError) as error:
        configuration(_written(file, content))
    assert told in str(error.value)
    assert str(file) in str(error.value)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="cannot be read: No such file"):
        configuration(DeepSpeedOptions(deepspeed=tmp_path / "none.json"))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"zero_stage": 2, "zero_offload_parameters": "cpu"}, "offloaded by ZeRO stage 3 alone, not by stage 2"),
        ({"zero_stage": 0, "zero_offload_optimizer": "cpu"}, "offloaded by ZeRO stages 1 to 3"),
        ({"zero_offload_optimizer": "nvme"}, "--zero-offload-optimizer nvme needs --zero-nvme-path"),
        ({"zero_nvme_path": Path("disk")}, "--zero-nvme-path has no effect"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(LmflowError, match=told):
        configuration(DeepSpeedOptions(**options))


def test_a_flag_against_the_file_is_refused_by_both_names(file: Path) -> None:
    _written(file, {"zero_optimization": {"stage": 3}})
    with pytest.raises(LmflowError, match=r"--zero-stage 2, but stage is 3 in .*ds\.json"):
        configuration(DeepSpeedOptions(deepspeed=file, zero_stage=2))
