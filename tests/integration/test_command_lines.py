"""Whole command lines on a tiny model: LMFlow's documented ones, and what each leaves behind."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from lmflow_core.contracts.examples import Message
from lmflow_core.generation.answers import Answer
from lmflow_core.generation.chat_model import LoadedChatModel
from lmflow_core.testing.fixtures import CliResult

Cli = Callable[..., CliResult]

CONVERSATIONS = [
    {"messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "world"}]},
    {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "What is the capital of France?"},
            {"role": "assistant", "content": "Paris."},
            {"role": "user", "content": "On which river?"},
            {"role": "assistant", "content": "The Seine."},
        ]
    },
    {"messages": [{"role": "user", "content": "dog or fox"}, {"role": "assistant", "content": "the lazy dog"}]},
]


@pytest.fixture
def lmflow_data(tmp_path: Path) -> Path:
    """A folder in LMFlow's own layout."""
    folder = tmp_path / "data" / "alpaca" / "train"
    folder.mkdir(parents=True)
    (folder / "train.json").write_text(json.dumps({"type": "conversation", "instances": CONVERSATIONS}))
    return folder


@torch.no_grad()
def _logits(network: Any) -> torch.Tensor:
    logits: torch.Tensor = network.eval()(input_ids=torch.arange(3, 40)[None]).logits
    return logits


def test_lmflows_full_lora_and_merge_lines(
    lmflow_cli: Cli, tiny_model: Path, lmflow_data: Path, tmp_path: Path
) -> None:
    start = ("finetune", "--model_name_or_path", tiny_model, "--dataset_path", lmflow_data, "--learning_rate", "1e-2")
    full, lora, merged = tmp_path / "full", tmp_path / "lora", tmp_path / "merged"
    assert lmflow_cli(*start, "--output_model_path", full).status == 0
    assert lmflow_cli(*start, "--use_lora", "1", "--lora_r", "8", "--output_lora_path", lora).status == 0
    result = lmflow_cli(
        "merge", "--model_name_or_path", tiny_model, "--lora_model_path", lora, "--output_model_path", merged
    )
    assert result.status == 0, result.stderr

    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    untouched = _logits(base)
    assert not torch.allclose(_logits(AutoModelForCausalLM.from_pretrained(full)), untouched, atol=1e-3)
    adapted = _logits(PeftModel.from_pretrained(base, lora))
    assert not torch.allclose(adapted, untouched, atol=1e-4)
    torch.testing.assert_close(_logits(AutoModelForCausalLM.from_pretrained(merged)), adapted, atol=1e-4, rtol=1e-4)
    assert json.loads((lora / "adapter_config.json").read_text())["r"] == 8


def test_an_adapter_folder_opens_as_a_model(
    lmflow_cli: Cli, tiny_model: Path, lmflow_data: Path, tmp_path: Path
) -> None:
    adapter, merged = tmp_path / "adapter", tmp_path / "merged"
    train = ("finetune", "--model", tiny_model, "--dataset", lmflow_data, "--tuner", "lora", "--lr", "0.02")
    assert lmflow_cli(*train, "--epochs", "5", "--output", adapter).status == 0
    assert lmflow_cli("export", "--model", adapter, "--output", merged).status == 0
    scores = [
        lmflow_cli("evaluate", "--model", model, "--dataset", lmflow_data, "--json").json()["nll_per_token"]
        for model in (adapter, merged, tiny_model)
    ]
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)
    assert scores[0] < scores[2] - 0.05


def test_evaluate_equals_a_loop_over_transformers(lmflow_cli: Cli, tiny_model: Path, lmflow_data: Path) -> None:
    result = lmflow_cli("evaluate", "--model", tiny_model, "--dataset", lmflow_data, "--json").json()
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    network = AutoModelForCausalLM.from_pretrained(tiny_model, attn_implementation="eager").eval()
    nll, tokens = 0.0, 0
    for row in CONVERSATIONS:
        messages: list[dict[str, str]] = row["messages"]
        ids, trained = [], []

        def rendered(turns: list[dict[str, str]], prompt: bool = False) -> str:
            text: str = (
                tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=prompt) if turns else ""
            )
            return text

        for position, message in enumerate(messages):
            assistant = message["role"] == "assistant"
            before = rendered(messages[:position], assistant)
            body = rendered(messages[: position + 1])[len(before) :]
            parts = [(body.removesuffix("\n"), True), ("\n", False)] if assistant else [(body, False)]
            if assistant:
                header = before[len(rendered(messages[:position])) :]
                parts = [(header, False), *parts]
            for text, flag in parts:
                piece = tokenizer(text, add_special_tokens=False).input_ids
                ids += piece
                trained += [flag] * len(piece)
        with torch.no_grad():
            logprobs = network(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        for position in range(1, len(ids)):
            if trained[position]:
                nll -= float(logprobs[position - 1, ids[position]])
                tokens += 1
    assert result["tokens"] == tokens
    assert result["examples"] == len(CONVERSATIONS)
    assert result["nll_per_token"] == pytest.approx(nll / tokens, abs=1e-5)
    assert result["perplexity"] == pytest.approx(math.exp(nll / tokens), rel=1e-5)


def test_the_saved_tokenizer_renders_what_training_used(
    lmflow_cli: Cli, tiny_model: Path, lmflow_data: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    line = ("finetune", "--model", tiny_model, "--dataset", lmflow_data, "--template", "zephyr", "--output", output)
    assert lmflow_cli(*line).status == 0
    tokenizer = AutoTokenizer.from_pretrained(output)
    previews = lmflow_cli(
        "data", "preview", lmflow_data, "--model", tiny_model, "--template", "zephyr", "--json"
    ).json()
    assert len(previews) == len(CONVERSATIONS)
    for row, shown in zip(CONVERSATIONS, previews, strict=True):
        assert tokenizer.apply_chat_template(row["messages"], tokenize=False) == shown["sequences"][0]["text"]
    again = lmflow_cli("data", "preview", lmflow_data, "--model", output, "--json").json()
    assert [shown["sequences"] for shown in again] == [shown["sequences"] for shown in previews]


def test_run_json_tells_what_was_done(lmflow_cli: Cli, tiny_model: Path, lmflow_data: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    line = ("finetune", "--model", tiny_model, "--dataset", lmflow_data, "--output", output, "--epochs", "2", "--json")
    printed = lmflow_cli(*line).json()
    record = json.loads((output / "run.json").read_text())
    assert printed == record
    assert record["steps"] == 2
    assert record["tokens"] == 2 * record["data"]["tokens"]
    assert record["options"]["epochs"] == 2.0
    assert record["options"]["tuner"] == "full"
    assert record["template"] == "chatml"
    assert record["tokens_per_second"] > 0
    assert record["peak_memory_bytes"] > 1e8
    assert record["versions"]["plugin_digest"] == lmflow_cli("plugins", "--json").json()["digest"]
    assert (output / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert not list(output.glob("*.partial"))
    assert not (output / "checkpoints").exists()


def test_a_run_json_repeats_its_run(lmflow_cli: Cli, tiny_model: Path, lmflow_data: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    line = (
        "finetune",
        "--model",
        tiny_model,
        "--dataset",
        lmflow_data,
        "--tuner",
        "lora",
        "--lora-r",
        "4",
        "--lr",
        "0.01",
    )
    assert lmflow_cli(*line, "--output", first).status == 0
    assert lmflow_cli("finetune", first / "run.json", "--output", second).status == 0
    name = "adapter_model.safetensors"
    assert (first / name).read_bytes() == (second / name).read_bytes()


def test_a_run_file_is_overridden_by_flags(
    lmflow_cli: Cli, tiny_model: Path, lmflow_data: Path, tmp_path: Path
) -> None:
    run_file = tmp_path / "run.yaml"
    run_file.write_text(
        f"model: {tiny_model}\ndataset: {lmflow_data}\noutput: {tmp_path / 'out'}\n"
        "tuner: lora\nlora_r: 2\nnum_train_epochs: 3\nlr: 1e-3\n"
    )
    record = lmflow_cli("finetune", run_file, "--lora-r", "5", "--json").json()
    assert record["options"]["lora_r"] == 5
    assert record["options"]["epochs"] == 3.0
    assert record["options"]["lr"] == 1e-3


def test_generate_answers_and_tells_its_statistics(lmflow_cli: Cli, tiny_model: Path) -> None:
    line = ("generate", "--model", tiny_model, "--prompt", "hello", "--max-new-tokens", "12")
    told = lmflow_cli(*line, "--json").json()
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    network = AutoModelForCausalLM.from_pretrained(tiny_model)
    messages = [{"role": "user", "content": "hello"}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt")
    ids = network.generate(**prompt, max_new_tokens=12, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert told["prompt_tokens"] == prompt["input_ids"].shape[1]
    assert told["tokens"] == len(ids)
    assert told["text"] == tokenizer.decode(ids, skip_special_tokens=False).removesuffix("<|im_end|>")
    assert told["finish_reason"] == ("stop" if ids[-1] == 2 else "length")
    assert lmflow_cli(*line).stdout == told["text"] + "\n"


def test_generate_tells_how_likely_each_token_was(lmflow_cli: Cli, tiny_model: Path) -> None:
    line = ("generate", "--model", tiny_model, "--prompt", "hello", "--max-new-tokens", "3", "--json")
    told = lmflow_cli(*line, "--logprobs", "2").json()
    assert len(told["logprobs"]) == 3
    for token in told["logprobs"]:
        (best, logprob), (_, second) = token["alternatives"]
        assert (token["id"], token["logprob"]) == (best, logprob)  # greedy
        assert second <= logprob < 0
    assert "logprobs" not in lmflow_cli(*line).json()


def test_chat_keeps_and_forgets_the_conversation(
    lmflow_cli: Cli, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[tuple[str, str]]] = []
    answer = LoadedChatModel.answer

    def watched(model: LoadedChatModel, messages: list[Message]) -> Answer:
        seen.append([(message.role, message.content) for message in messages])
        return answer(model, messages)

    monkeypatch.setattr(LoadedChatModel, "answer", watched)
    lines = iter(["hello", "", "/nonsense", "hello", "/reset", "hello", "/exit", "never read"])
    monkeypatch.setattr("builtins.input", lambda: next(lines))
    result = lmflow_cli("chat", "--model", tiny_model, "--max-new-tokens", "8", "--temperature", "1")
    assert result.status == 0
    assert [len(messages) for messages in seen] == [1, 3, 1]
    assert [messages[-1] for messages in seen] == [("user", "hello")] * 3
    assert seen[1][1][0] == "assistant"
    assert "unknown command /nonsense" in result.stderr
    assert "the conversation is forgotten" in result.stderr
    assert next(lines) == "never read"


def test_data_stats(lmflow_cli: Cli, tiny_model: Path, lmflow_data: Path) -> None:
    stats = lmflow_cli("data", "stats", lmflow_data, "--model", tiny_model, "--max-length", "20", "--json").json()
    previews = lmflow_cli("data", "preview", lmflow_data, "--model", tiny_model, "--json").json()
    sequences = [sequence for shown in previews for sequence in shown["sequences"]]
    lengths = [len(sequence["input_ids"]) for sequence in sequences]
    assert (stats["examples"], stats["sequences"]) == (3, 3)
    assert stats["tokens"] == sum(lengths)
    assert stats["trained_tokens"] == sum(label != -100 for sequence in sequences for label in sequence["labels"])
    assert stats["too_long"] == sum(length > 20 for length in lengths)
    assert (stats["length"]["min"], stats["length"]["max"]) == (min(lengths), max(lengths))
