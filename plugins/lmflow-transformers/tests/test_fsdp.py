"""Weights in shards: what is asked of them, what is refused, and a job of one process."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM

from lmflow_core.api import LoadPlan, Quantization, RequestError
from lmflow_core.cli.main import run
from lmflow_transformers.fsdp import FsdpEngine
from lmflow_transformers.options import FsdpOptions
from lmflow_transformers.shards import full, full_state, layers_to_shard, sharded_state, taking_whole_weights

_TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_CPU = LoadPlan(dtype="float32", device="cpu")


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = str(taken.getsockname()[1])
    for name, value in zip(_TORCHRUN, ("0", "0", "1", "127.0.0.1", port), strict=True):
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"quantization": Quantization("nf4")}, "--engine fsdp cannot spread weights of the form nf4"),
        ({"compute_dtype": "float16"}, "--engine fsdp does not scale losses"),
        ({"dtype": "float16"}, "--engine fsdp does not scale losses"),
    ],
)
def test_weights_that_cannot_be_sharded_are_refused(more: dict[str, Any], told: str) -> None:
    with pytest.raises(RequestError, match=told):
        FsdpEngine().plan(LoadPlan(**{"dtype": "float32", "device": "cpu", **more}))


def test_what_is_in_main_memory_is_not_offloaded() -> None:
    with pytest.raises(RequestError, match="--fsdp-offload cpu: on a CPU"):
        FsdpEngine(FsdpOptions(fsdp_offload="cpu")).plan(_CPU)


def test_it_needs_a_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in _TORCHRUN:
        monkeypatch.delenv(name, raising=False)
    with (
        pytest.raises(RequestError, match=r"add --nproc N, or start .*torchrun --nproc-per-node"),
        FsdpEngine().start(),
    ):
        pass


def test_layers_are_those_that_are_never_split(tiny_model: Path) -> None:
    network = AutoModelForCausalLM.from_pretrained(tiny_model)
    assert layers_to_shard(network) == list(network.model.layers)


def test_layers_of_an_unknown_network_are_its_longest_list() -> None:
    lists = [torch.nn.ModuleList(torch.nn.Linear(2, 2) for _ in range(count)) for count in (2, 3)]
    assert layers_to_shard(torch.nn.ModuleDict({"a": lists[0], "b": lists[1]})) == list(lists[1])
    assert layers_to_shard(torch.nn.Linear(2, 2)) == []


@pytest.fixture
def sharded(launched: None) -> Iterator[torch.nn.Module]:
    engine = FsdpEngine()
    engine.plan(_CPU)
    torch.manual_seed(0)
    with engine.start():
        module: Any = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 3))
        module[1].weight = torch.nn.Parameter(torch.ones(3, 4))
        module.reach = lambda action: action()
        engine.spread(module)
        yield module


def test_weights_and_state_come_together_and_apart_again(sharded: torch.nn.Module) -> None:
    assert all(isinstance(parameter, DTensor) for parameter in sharded.parameters())
    whole = full(sharded, keep=True)
    assert torch.equal(whole["1.weight"], torch.ones(3, 4))
    assert full(sharded, keep=False) == {}
    optimizer = torch.optim.AdamW(sharded.parameters(), lr=0.1)
    sharded(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    state = full_state(optimizer.state_dict(), keep=True)
    assert not any(isinstance(value, DTensor) for values in state["state"].values() for value in values.values())
    with taking_whole_weights(sharded):
        sharded.load_state_dict(whole)
    assert torch.equal(full(sharded, keep=True)["1.weight"], torch.ones(3, 4))
    again = torch.optim.AdamW(sharded.parameters(), lr=0.1)
    again.load_state_dict(sharded_state(state, again))
    for parameter in sharded.parameters():
        assert isinstance(again.state[parameter]["exp_avg"], DTensor)
        moment, wanted = (each.state[parameter]["exp_avg"].to_local() for each in (again, optimizer))
        assert torch.equal(moment, wanted)


def test_a_job_of_one_process_trains_in_half_precision_on_master_weights(
    launched: None, tiny_model: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    pytest.importorskip("lmflow_datasets", reason="rows are read by the plugin that knows their form")
    data = tmp_path / "data.jsonl"
    data.write_text("\n".join(json.dumps({"text": f"a text {number}"}) for number in range(4)), encoding="utf-8")
    job = ["finetune", "--model", str(tiny_model), "--dataset", str(data), "--max-steps", "2", "--engine", "fsdp"]
    assert run([*job, "--dtype", "bfloat16", "--output", str(tmp_path / "out")]) == 0
    assert {weight.dtype for weight in load_file(tmp_path / "out" / "model.safetensors").values()} == {torch.bfloat16}
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "bfloat16"
