"""Opening, scoring and saving models."""

from __future__ import annotations

import errno
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from lmflow_core.api import IGNORE, EncodedSequence, ModelError, ModelSettings, Quantization, RequestError
from lmflow_transformers.loading import hub_folder
from lmflow_transformers.models import CausalModel, CausalModelLoader
from lmflow_transformers.writing import refusals_as_os_errors


def _open(folder: Path, **settings: str) -> CausalModel:
    return CausalModelLoader().open(str(folder), ModelSettings(model=str(folder), device="cpu", **settings))


def test_scores_equal_a_loop_over_single_examples(tiny_model: Path) -> None:
    model = _open(tiny_model)
    model.load()
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randint(3, 300, (length,), generator=generator).tolist() for length in (5, 250, 2, 90)] * 8
    examples = [EncodedSequence(ids, [IGNORE] * (len(ids) // 2) + ids[len(ids) // 2 :]) for ids in rows]
    network = AutoModelForCausalLM.from_pretrained(tiny_model, attn_implementation="eager")
    for example, score in zip(examples, model.score(examples), strict=True):
        with torch.no_grad():
            logits = network(input_ids=torch.tensor([example.input_ids])).logits[0, :-1]
        targets = torch.tensor(example.labels[1:])
        expected = torch.nn.functional.cross_entropy(logits, targets, ignore_index=IGNORE, reduction="sum")
        assert score.nll == pytest.approx(float(expected), abs=1e-4)
        assert score.tokens == int((targets != IGNORE).sum())


def test_weights_are_needed_only_after_load(tiny_model: Path) -> None:
    model = _open(tiny_model)
    assert model.context_length == 256
    with pytest.raises(ModelError, match="are not loaded"):
        _ = model.network


def test_a_saved_model_loads_in_plain_transformers_with_the_same_weights(tiny_model: Path, tmp_path: Path) -> None:
    model = _open(tiny_model)
    model.load()
    model.save(tmp_path, "{{ 'mine' }}")
    reloaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    for name, tensor in model.network.state_dict().items():
        assert torch.equal(tensor, reloaded.state_dict()[name]), name
    assert _open(tmp_path).tokenizer.inner.chat_template == "{{ 'mine' }}"
    assert list(tmp_path.glob("*.bin")) == []


def test_a_folder_without_configuration_or_weights_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"is no model folder: it has no config\.json"):
        _open(tmp_path)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_model / name, tmp_path)
    with pytest.raises(ModelError, match=r"holds no weights: no \*\.safetensors file$"):
        _open(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelError, match=r"pytorch_model\.bin is pickled, which LMFlow does not read"):
        _open(tmp_path)


def test_damaged_weights_are_a_clear_error(tiny_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match=r"model.safetensors is (damaged|truncated): "):
        _open(folder)


def test_weights_that_do_not_fit_the_configuration_are_a_clear_error(tiny_model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"intermediate_size": 64', '"intermediate_size": 60'))
    model = _open(folder)
    with pytest.raises(ModelError, match="cannot be opened"):
        model.load()


def test_devices_that_do_not_exist_are_refused(tiny_model: Path) -> None:
    with pytest.raises(RequestError, match="--device toaster: not a device"):
        CausalModelLoader().open(str(tiny_model), ModelSettings(model="m", device="toaster"))
    if not torch.cuda.is_available():
        with pytest.raises(RequestError, match="has no CUDA GPU"):
            CausalModelLoader().open(str(tiny_model), ModelSettings(model="m", device="cuda"))


def test_dtype_is_taken(tiny_model: Path) -> None:
    model = _open(tiny_model, dtype="bfloat16")
    model.load()
    assert {parameter.dtype for parameter in model.network.parameters()} == {torch.bfloat16}


def test_the_files_of_a_hub_model_are_fetched_when_they_are_asked_for(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    asked: dict[str, Any] = {}

    def fetch(name: str, **more: Any) -> str:
        asked.update(more, name=name)
        if name == "owner/gone":
            raise OSError("no such\nrepository")
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    model = CausalModelLoader().open(str(tiny_model), ModelSettings(model=str(tiny_model), device="cpu"))
    assert model.folder == tiny_model
    model = CausalModelLoader().open(str(tiny_model), ModelSettings(model=str(tiny_model), device="cpu"))
    model.source, model.arguments["revision"] = "owner/name", "main"
    assert model.folder == tmp_path
    assert (asked["name"], asked["revision"], asked["local_files_only"]) == ("owner/name", "main", True)
    assert "*.bin" not in asked["allow_patterns"]
    with pytest.raises(ModelError, match="the files of 'owner/gone' cannot be fetched: no such repository"):
        hub_folder("owner/gone", {"local_files_only": True})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "speech"}, "no model of transformers is loaded for the task 'speech'"),
        ({"quantization": Quantization("nf3")}, "weights cannot be loaded as nf3; the forms are nf4, fp4, int8"),
        ({"quantization": Quantization("nf4", compute_dtype="int3")}, "weights cannot be multiplied in int3"),
        ({"quantization": Quantization("nf4"), "sharded": True}, "quantised as nf4 cannot be spread over processes"),
        ({"new_tokens": 3}, "tokens cannot be added to its vocabulary"),
    ],
)
def test_what_a_load_plan_asks_for_and_cannot_be_is_refused_by_name(
    tiny_model: Path, changes: dict[str, Any], message: str
) -> None:
    model = _open(tiny_model)
    plan = model.plan
    with pytest.raises(RequestError, match=message):
        model.accept(replace(plan, **changes))
    assert model.plan is plan


def test_a_task_decides_what_stands_on_the_network(tiny_model: Path) -> None:
    model = _open(tiny_model)
    model.accept(replace(model.plan, task="regression", attention="eager"))
    model.load()
    assert model.network.config._attn_implementation == "eager"
    assert model.network(torch.arange(3, 9)[None]).logits.shape == (1, 1)


def test_what_a_disk_refuses_is_one_kind_of_error() -> None:
    with pytest.raises(OSError, match="No space left on device") as refused, refusals_as_os_errors():
        raise Exception("No space left on device (os error 28)")
    assert refused.value.errno == errno.ENOSPC
    with pytest.raises(KeyError), refusals_as_os_errors():
        raise KeyError("another")
