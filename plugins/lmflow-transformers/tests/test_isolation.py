"""Models that let packed sequences reach each other are found, and trained and measured an example at a time."""

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

from lmflow_core.api import IGNORE, EncodedSequence, TrainingJob, TrainingSettings
from lmflow_core.testing.jobs import make_job, single
from lmflow_core.testing.tiny import TINY_SHAPE
from lmflow_transformers.attention import SdpaAttention
from lmflow_transformers.isolation import isolates_sequences
from lmflow_transformers.models import CausalModel
from lmflow_transformers.options import AdamWOptions
from lmflow_transformers.training.optimizers import AdamW
from lmflow_transformers.training.sft import SftObjective

_ISOLATED = {
    "llama": LlamaConfig(**TINY_SHAPE),
    "qwen3": Qwen3Config(**TINY_SHAPE, head_dim=8),
    "capped gemma2": Gemma2Config(**TINY_SHAPE, head_dim=8),
    "gpt2": GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4),
    "opt": OPTConfig(vocab_size=64, hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4),
}
_JOINED = {
    "alibi": BloomConfig(vocab_size=400, hidden_size=32, n_layer=2, n_head=4),
    "attention of its own": MptConfig(vocab_size=64, d_model=32, n_layers=2, n_heads=4, max_seq_len=64),
    "without the interface": StableLmConfig(**TINY_SHAPE),
    "recurrent": MambaConfig(vocab_size=400, hidden_size=32, num_hidden_layers=2, state_size=8),
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


@pytest.mark.parametrize("name", [*_ISOLATED, *_JOINED])
def test_it_is_found_whether_packed_sequences_reach_each_other(name: str) -> None:
    network = _network({**_ISOLATED, **_JOINED}[name]).train()
    own = network.config._attn_implementation
    assert isolates_sequences(network, SdpaAttention().implementation("cpu")) == (name in _ISOLATED)
    assert network.training
    assert network.config._attn_implementation == own


def _rows() -> list[EncodedSequence]:
    generator = torch.Generator().manual_seed(3)
    sampled = [torch.randint(3, 64, (4 + number,), generator=generator).tolist() for number in range(5)]
    return [EncodedSequence(ids, [IGNORE, IGNORE, *ids[2:]]) for ids in sampled]


_SETTINGS = TrainingSettings(lr=1e-2, batch_size=5, warmup_ratio=0.0, max_grad_norm=0.0, logging_steps=1)


@pytest.fixture(params=["alibi", "recurrent"])
def job(request: pytest.FixtureRequest, tiny_model: Path, tmp_path: Path) -> TrainingJob[Any]:
    folder = tmp_path / "model"
    _network(_JOINED[request.param]).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    examples = [single(row.input_ids, row.labels) for row in _rows()]
    optimizer = AdamW(AdamWOptions(adam_epsilon=1e-3))
    return make_job(folder, tmp_path / "c", _SETTINGS, examples, validation=examples, optimizer=optimizer)


def _alone(model: CausalModel, row: EncodedSequence) -> torch.Tensor:
    """Return the summed loss of one example, in plain transformers."""
    logits = model.network(input_ids=torch.tensor([list(row.input_ids)])).logits[0, :-1]
    targets = torch.tensor(list(row.labels[1:]))
    return torch.nn.functional.cross_entropy(logits, targets, ignore_index=IGNORE, reduction="sum")


def test_they_are_measured_a_sequence_at_a_time(job: TrainingJob[Any]) -> None:
    scores = list(job.model.score(_rows()))
    with torch.no_grad():
        assert [s.nll for s in scores] == pytest.approx([float(_alone(job.model, row)) for row in _rows()], rel=1e-5)


def test_they_are_trained_a_sequence_at_a_time(job: TrainingJob[Any], capsys: pytest.CaptureFixture[str]) -> None:
    joined: CausalModel = job.model
    start = {name: tensor.clone() for name, tensor in joined.network.state_dict().items()}
    report = SftObjective().train(job)
    assert "packed sequences would reach each other in this model: each goes alone" in capsys.readouterr().err
    trained = {name: tensor.clone() for name, tensor in joined.network.state_dict().items()}

    joined.network.load_state_dict(start)
    optimizer = torch.optim.AdamW(joined.network.parameters(), lr=1e-2, weight_decay=0.0, eps=1e-3)
    count = sum(label != IGNORE for row in _rows() for label in row.labels[1:])
    losses = [_alone(joined, row) / count for row in _rows()]
    torch.stack(losses).sum().backward()
    optimizer.step()
    assert report.training["loss"][0].value == pytest.approx(sum(float(loss.detach()) for loss in losses), abs=1e-5)
    for name, tensor in joined.network.state_dict().items():
        torch.testing.assert_close(trained[name], tensor, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        validation = float(sum(_alone(joined, row) for row in _rows())) / count
    assert report.validation["loss"][-1].value == pytest.approx(validation, abs=1e-4)
