"""The folder of an adapter is looked at before peft opens it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from lmflow_core.api import ModelError
from lmflow_lora.adapter_check import check_adapter


def _adapter(folder: Path, **changes: Any) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, **changes}))
    save_file({"a": torch.zeros(4, 8)}, folder / "adapter_model.safetensors")
    return folder


def test_an_adapter_passes(tmp_path: Path) -> None:
    check_adapter(_adapter(tmp_path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"r": 10**12}, "the rank is 1000000000000"),
        ({"r": "x"}, "the rank is 'x'"),
        ({"rank_pattern": {"q_proj": 10**12}}, "the rank is 1000000000000"),
        ({"peft_type": "PROMPT_TUNING"}, "of the kind 'PROMPT_TUNING'"),
        ({"megatron_config": {"a": 1}}, "megatron_config is set, by which peft would import"),
        ({"init_lora_weights": "pissa_niter_99999999"}, "asks for more than 100 iterations"),
    ],
)
def test_a_configuration_that_is_hostile_is_told(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        check_adapter(_adapter(tmp_path, **changes))
    assert str(caught.value).startswith(str(tmp_path / "adapter_config.json"))


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    folder = _adapter(tmp_path)
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(ModelError, match=r"no adapter_model.safetensors \(adapter_model.bin is pickled"):
        check_adapter(folder)
