"""Models that let packed examples reach each other are found, and trained and measured an example at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BloomConfig,
    Gemma2Config,
    GPT2Config,
    JambaConfig,
    Llama4TextConfig,
    LlamaConfig,
    MambaConfig,
    MptConfig,
    OPTConfig,
    Qwen3Config,
    StableLmConfig,
)

from lmflow_core.api import IGNORE, Encoded, ModelSettings, TrainingJob, TrainingSettings, World
from lmflow_core.testing.tiny import TINY_SHAPE
from lmflow_transformers.attention import SdpaAttention
from lmflow_transformers.engines import LocalEngine
from lmflow_transformers.isolation import keeps_apart
from lmflow_transformers.models import CausalModel, CausalModelLoader
from lmflow_transformers.training.sft import SftObjective
from lmflow_transformers.tuners import FullTuner

_APART = {
    "llama": LlamaConfig(**TINY_SHAPE),
    "qwen3": Qwen3Config(**TINY_SHAPE, head_dim=8),
    "capped gemma2": Gemma2Config(**TINY_SHAPE, head_dim=8),
    "gpt2": GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4),
    "opt": OPTConfig(vocab_size=64, hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4),
}
_JOINED = {
    "alibi": BloomConfig(vocab_size=64, hidden_size=32, n_layer=2, n_head=4),
    "attention of its own": MptConfig(vocab_size=64, d_model=32, n_layers=2, n_heads=4, max_seq_len=64),
    "without the interface": StableLmConfig(**TINY_SHAPE),
    "recurrent": MambaConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2, state_size=8),
    "partly recurrent": JambaConfig(**TINY_SHAPE, num_experts=1, num_experts_per_tok=1, use_mamba_kernels=False),
    "attention in chunks": Llama4TextConfig(
        **TINY_SHAPE, head_dim=8, intermediate_size_mlp=48, attention_chunk_size=4, num_local_experts=1
    ),
}


def _network(config: Any) -> Any:
    torch.manual_seed(0)
    network = AutoModelForCausalLM.from_config(config)
    for parameter in network.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    return network


@pytest.mark.parametrize("name", [*_APART, *_JOINED])
def test_it_is_found_whether_packed_examples_reach_each_other(name: str) -> None:
    network = _network({**_APART, **_JOINED}[name]).train()
    own = network.config._attn_implementation
    assert keeps_apart(network, SdpaAttention().implementation("cpu")) == (name in _APART)
    assert network.training
    assert network.config._attn_implementation == own


def _rows() -> list[Encoded]:
    generator = torch.Generator().manual_seed(3)
    drawn = [torch.randint(3, 64, (4 + number,), generator=generator).tolist() for number in range(5)]
    return [Encoded(ids, [IGNORE, IGNORE, *ids[2:]]) for ids in drawn]


@pytest.fixture(params=["alibi", "recurrent"])
def joined(request: pytest.FixtureRequest, tiny_model: Path, tmp_path: Path) -> CausalModel:
    folder = tmp_path / "model"
    _network(_JOINED[request.param]).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    model = CausalModelLoader().open(str(folder), ModelSettings(model=str(folder), device="cpu"))
    model.load()
    return model


def _alone(model: CausalModel, row: Encoded) -> torch.Tensor:
    """Return the summed loss of one example, in plain transformers."""
    logits = model.network(input_ids=torch.tensor([list(row.input_ids)])).logits[0, :-1]
    targets = torch.tensor(list(row.labels[1:]))
    return torch.nn.functional.cross_entropy(logits, targets, ignore_index=IGNORE, reduction="sum")


def test_they_are_measured_an_example_at_a_time(joined: CausalModel) -> None:
    scores = list(joined.score(_rows()))
    with torch.no_grad():
        assert [s.nll for s in scores] == pytest.approx([float(_alone(joined, row)) for row in _rows()], rel=1e-5)


def test_they_are_trained_an_example_at_a_time(
    joined: CausalModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = {name: tensor.clone() for name, tensor in joined.network.state_dict().items()}
    settings = TrainingSettings(
        lr=1e-2, batch_size=5, warmup_ratio=0.0, max_grad_norm=0.0, adam_epsilon=1e-3, logging_steps=1
    )
    tuner, attention = FullTuner(), SdpaAttention().implementation("cpu")
    tuner.prepare(joined, 0)
    job = TrainingJob(
        joined, tuner, LocalEngine(), World(), _rows(), _rows(), settings, attention, tmp_path / "checkpoints"
    )
    report = SftObjective().train(job)
    assert "packed examples would reach each other in this model: they go through it alone" in capsys.readouterr().err
    trained = {name: tensor.clone() for name, tensor in joined.network.state_dict().items()}

    joined.network.load_state_dict(start)
    optimizer = torch.optim.AdamW(joined.network.parameters(), lr=1e-2, weight_decay=0.0, eps=1e-3)
    count = sum(label != IGNORE for row in _rows() for label in row.labels[1:])
    losses = [_alone(joined, row) / count for row in _rows()]
    torch.stack(losses).sum().backward()
    optimizer.step()
    assert report.losses[0].loss == pytest.approx(sum(float(loss.detach()) for loss in losses), abs=1e-5)
    for name, tensor in joined.network.state_dict().items():
        torch.testing.assert_close(trained[name], tensor, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        held_out = float(sum(_alone(joined, row) for row in _rows())) / count
    assert report.held_out_losses[-1].loss == pytest.approx(held_out, abs=1e-4)
