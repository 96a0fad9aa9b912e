"""LN-tuning against a plain loop; what is saved, put on, merged and resumed; and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    OlmoConfig,
    OlmoForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from lmflow_contrib_ln.norms import norm_parameters
from lmflow_contrib_ln.tuner import LnTuner
from lmflow_core.api import Destination, ModelError, ModelSettings, RequestError, TrainingSettings
from lmflow_core.testing.jobs import make_job, single
from lmflow_core.testing.references import FLAGS, PlainLoop, finetuned
from lmflow_core.testing.tiny import make_tiny_model, make_tokenizer
from lmflow_transformers.api import Batch, CausalModel, CausalModelLoader, LossOutput, sequence_logprobs, train

_STEPS, _ROWS = 4, 6
_PREFIX, _ANSWERED = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n", "{}<|im_end|>"
_IDS = torch.arange(3, 40)[None]
Cli = Callable[..., Any]


def _texts(number: int) -> tuple[str, str]:
    return f"hello {number}", ("the quick brown fox " * (number + 1)).strip()


def _is_norm(name: str) -> bool:
    return "norm" in name


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with weights large enough for its normalisations to matter."""
    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "model", initializer_range=0.1)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("lmflow_datasets", reason="rows are read by the plugin that knows their form")
    rows = [dict(zip(("instruction", "output"), _texts(number), strict=True)) for number in range(_ROWS)]
    file = tmp_path_factory.mktemp("data") / "rows.json"
    file.write_text(json.dumps(rows), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def run(data: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The folder of a run and its record."""
    folder = tmp_path_factory.mktemp("runs") / "ln"
    flags = ["--model", tiny_model, "--dataset", data, "--tuner", "ln", *FLAGS]
    return folder, finetuned(folder, *flags, "--epochs", _STEPS, "--batch-size", _ROWS)


@pytest.fixture(scope="module")
def loop(tiny_model: Path) -> tuple[PlainLoop, list[float]]:
    """A plain loop over unpacked rows that trains the same, and its losses."""
    tokenizer, plain = AutoTokenizer.from_pretrained(tiny_model), PlainLoop(tiny_model, "full")
    for name, parameter in plain.network.named_parameters():
        parameter.requires_grad_(_is_norm(name))

    def loss() -> Any:
        total, count = torch.zeros(()), 0
        for number in range(_ROWS):
            prompt, answer = _texts(number)
            before = tokenizer(_PREFIX.format(prompt), add_special_tokens=False).input_ids
            learned = tokenizer(_ANSWERED.format(answer), add_special_tokens=False).input_ids
            total = total - plain.logprob([*before, *learned], len(before))
            count += len(learned)
        return total / count

    return plain, [plain.step(number, loss) for number in range(_STEPS)]


@torch.no_grad()
def _logits(network: Any) -> torch.Tensor:
    logits: torch.Tensor = network.eval()(input_ids=_IDS).logits
    return logits


def _open(folder: Path) -> CausalModel:
    model = CausalModelLoader().open(str(folder), ModelSettings(model=str(folder), device="cpu"))
    model.load()
    return model


def test_every_step_is_that_of_a_plain_loop(
    run: tuple[Path, dict[str, Any]], loop: tuple[PlainLoop, list[float]]
) -> None:
    losses = [loss for _, loss in run[1]["losses"]]
    assert losses == pytest.approx(loop[1], rel=1e-6, abs=1e-5)
    assert losses[-1] < losses[0] - 0.01


def test_merged_it_is_what_the_plain_loop_made(
    run: tuple[Path, dict[str, Any]], loop: tuple[PlainLoop, list[float]], lmflow_cli: Cli, tiny_model: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    told = lmflow_cli("merge", "--model", run[0], "--output", tmp_path / "whole")
    assert told.status == 0, told.stderr
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "whole")
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    torch.testing.assert_close(_logits(merged), _logits(loop[0].network), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(_logits(merged), _logits(base), atol=1e-3)
    for (name, ours), theirs in zip(merged.state_dict().items(), base.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs) is not _is_norm(name), name


def test_the_adapter_is_small_and_names_its_model(run: tuple[Path, dict[str, Any]], tiny_model: Path) -> None:
    held = load_file(run[0] / "ln_adapter.safetensors")
    network = AutoModelForCausalLM.from_pretrained(tiny_model)
    assert sorted(held) == sorted(name for name, _ in network.named_parameters() if _is_norm(name))
    assert {tensor.dtype for tensor in held.values()} == {torch.float32}
    assert json.loads((run[0] / "ln_adapter.json").read_text()) == {"base_model": str(tiny_model)}
    assert not (run[0] / "model.safetensors").exists()
    assert (run[0] / "tokenizer.json").is_file()


def test_commands_take_its_folder_for_a_model(
    run: tuple[Path, dict[str, Any]], loop: tuple[PlainLoop, list[float]], data: Path, lmflow_cli: Cli, tiny_model: Path
) -> None:
    def nll(model: Path, *more: object) -> float:
        told = lmflow_cli("evaluate", "--model", model, "--dataset", data, *more, "--json")
        assert told.status == 0, told.stderr
        value: float = told.json()["nll_per_token"]
        return value

    assert nll(run[0]) < nll(tiny_model) - 0.01
    assert nll(tiny_model, "--adapter", run[0]) == nll(run[0])
    answer = lmflow_cli("generate", "--model", run[0], "--prompt", "hello 1", "--max-new-tokens", 8)
    assert answer.status == 0, answer.stderr


def test_training_goes_on_with_an_adapter(
    run: tuple[Path, dict[str, Any]], data: Path, tiny_model: Path, tmp_path: Path
) -> None:
    flags = ["--model", run[0], "--dataset", data, "--tuner", "ln", "--batch-size", _ROWS, "--epochs", 1]
    record = finetuned(tmp_path / "more", *flags, "--lr", "1e-9", "--logging-steps", 1)
    before, after = (load_file(folder / "ln_adapter.safetensors") for folder in (run[0], tmp_path / "more"))
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, atol=1e-6, rtol=0)
    assert record["losses"][0][1] < run[1]["losses"][-1][1]
    assert json.loads((tmp_path / "more" / "ln_adapter.json").read_text()) == {"base_model": str(tiny_model)}


class _Likelihood:
    unit = "texts"

    def units(self, batch: Batch) -> int:
        return len(batch.groups) - 1

    def __call__(self, network: Any, batch: Batch) -> LossOutput:
        return LossOutput(-sequence_logprobs(network, batch).sum(), {})


def _job(folder: Path, checkpoints: Path, **changes: Any) -> Any:
    values: dict[str, Any] = {"lr": 1e-2, "batch_size": 2, "epochs": 2, "warmup_ratio": 0.0, "logging_steps": 1}
    rows = [single(list(range(n, n + 12))) for n in range(3, 11)]
    return make_job(folder, checkpoints, TrainingSettings(**{**values, **changes}), rows, tuner=LnTuner())


def test_a_resumed_run_ends_as_the_uninterrupted_one(tiny_model: Path, tmp_path: Path) -> None:
    settings = {"save_steps": 3, "save_total_limit": 10, "lr_scheduler_type": "cosine"}
    whole = _job(tiny_model, tmp_path / "c", **settings)
    train(whole, _Likelihood())
    for step in (6, 8):
        shutil.rmtree(tmp_path / "c" / f"checkpoint-{step}", ignore_errors=True)
    resumed = _job(tiny_model, tmp_path / "c", **settings)
    assert resumed.resume
    assert train(resumed, _Likelihood()).steps == 8
    for name, tensor in whole.model.network.state_dict().items():
        torch.testing.assert_close(resumed.model.network.state_dict()[name], tensor, rtol=0, atol=0)
    reference = resumed.tuner.reference(resumed.model)
    assert reference is not None
    with reference:
        torch.testing.assert_close(_logits(resumed.model.network), _logits(_open(tiny_model).network))


def test_the_reference_is_the_model_from_before_and_leaves_no_trace(tiny_model: Path, tmp_path: Path) -> None:
    job = _job(tiny_model, tmp_path / "c")
    train(job, _Likelihood())
    network, trained = job.model.network, _logits(job.model.network)

    def gradients(between: bool) -> list[torch.Tensor]:
        network.zero_grad()
        loss = network(input_ids=_IDS, labels=_IDS).loss
        if between:
            with job.tuner.reference(job.model):
                torch.testing.assert_close(_logits(network), _logits(AutoModelForCausalLM.from_pretrained(tiny_model)))
        loss.backward()
        return [parameter.grad.clone() for parameter in norm_parameters(network).values()]

    for one, other in zip(gradients(between=True), gradients(between=False), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(_logits(network), trained)


def test_norms_of_every_kind_are_found() -> None:
    small: dict[str, Any] = {"vocab_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 16}
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=32, n_layer=1, n_head=2, n_embd=16))
    assert {*norm_parameters(gpt2)} == {
        f"transformer.{place}.{part}" for place in ("h.0.ln_1", "h.0.ln_2", "ln_f") for part in ("weight", "bias")
    }
    qwen3 = Qwen3ForCausalLM(Qwen3Config(**small, num_key_value_heads=1, head_dim=8, intermediate_size=16))
    names = ("input_layernorm", "post_attention_layernorm", "self_attn.q_norm", "self_attn.k_norm")
    assert {*norm_parameters(qwen3)} == {"model.norm.weight", *(f"model.layers.0.{name}.weight" for name in names)}


def test_a_model_without_weights_of_norms_is_refused(tmp_path: Path) -> None:
    config = OlmoConfig(
        vocab_size=400, num_hidden_layers=1, num_attention_heads=2, hidden_size=16, intermediate_size=16,
        pad_token_id=0, eos_token_id=2,
    )  # fmt: skip
    OlmoForCausalLM(config).save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(RequestError, match=r"^--tuner ln: the normalisations of .* have no weights; use --tuner lora"):
        LnTuner().prepare(_open(tmp_path), 0)


def test_wrong_adapters_are_told(run: tuple[Path, dict[str, Any]], tiny_model: Path, tmp_path: Path) -> None:
    other = _open(make_tiny_model(tmp_path / "deeper", layers=3))
    with pytest.raises(ModelError, match=r"layers\.2\.input_layernorm\.weight is not in it and of shape \[32\] in the"):
        LnTuner().attach(other, run[0])
    model, folder = _open(tiny_model), tmp_path / "broken"
    folder.mkdir()
    with pytest.raises(ModelError, match=r"holds an adapter without weights: no ln_adapter\.safetensors"):
        LnTuner().attach(model, folder)
    held = load_file(run[0] / "ln_adapter.safetensors")
    save_file({**held, "model.norm.weight": torch.zeros(5)}, folder / "ln_adapter.safetensors")
    with pytest.raises(
        ModelError, match=r"model\.norm\.weight is of shape \[5\] in it and of shape \[32\] in the model"
    ):
        LnTuner().attach(model, folder)
    (folder / "ln_adapter.safetensors").write_bytes((run[0] / "ln_adapter.safetensors").read_bytes()[:-4])
    with pytest.raises(ModelError, match="is truncated"):
        LnTuner().attach(model, folder)
    model.adapter = folder
    with pytest.raises(ModelError, match=r"^--tuner ln on the adapter in .*: merge it first with lmflow merge"):
        LnTuner().check(model)


def test_a_process_that_is_not_the_main_one_writes_nothing_and_gathered_weights_are_written(
    tiny_model: Path, tmp_path: Path
) -> None:
    model, tuner = _open(tiny_model), LnTuner()
    tuner.prepare(model, 0)
    tuner.save(model, Destination(tmp_path / "nowhere", is_main=False))
    assert not (tmp_path / "nowhere").exists()
    gathered = {name: torch.full_like(tensor, 3.0) for name, tensor in model.network.state_dict().items()}
    tuner.save(model, Destination(tmp_path, "{{ 'mine' }}", weights=gathered))
    assert {float(tensor.mean()) for tensor in load_file(tmp_path / "ln_adapter.safetensors").values()} == {3.0}
    assert (tmp_path / "chat_template.jinja").read_text() == "{{ 'mine' }}"
