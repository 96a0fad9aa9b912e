"""The objective that generates, against a plain loop that samples and learns one sequence at a time."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from lmflow_core.testing.references import FLAGS, TUNERS, PlainLoop, finetuned

_STEPS, _SAMPLES, _TOKENS, _PATTERN = 3, 3, 6, ".*[aeiou].*"
_RLOO = ("--objective", "rloo", "--reward", "regex", "--regex-pattern")
_PROMPTS = ["hello", "the quick brown fox", "what is the capital of France?", "no"]
_CASES = [(tuner, processes) for tuner in TUNERS for processes in (1, 2)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("lmflow_datasets", reason="rows are read by the plugin that knows their form")
    pytest.importorskip("lmflow_lisa", reason="trained with LISA too")
    pytest.importorskip("lmflow_lora", reason="trained with LoRA too")
    pytest.importorskip("lmflow_reward", reason="its rewards are learned from")
    file = tmp_path_factory.mktemp("data") / "prompts.jsonl"
    file.write_text("\n".join(json.dumps({"prompt": prompt}) for prompt in _PROMPTS), encoding="utf-8")
    return file


def _seed(prompt: list[int], step: int, number: int) -> int:
    return int.from_bytes(hashlib.sha256(f"42 {step} {number} {prompt}".encode()).digest()[:4], "big")


@torch.no_grad()
def _sampled(network: Any, prompt: list[int], seed: int, stops: set[int]) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    ids = list(prompt)
    while len(ids) < len(prompt) + _TOKENS and not (len(ids) > len(prompt) and ids[-1] in stops):
        probabilities = network(input_ids=torch.tensor([ids])).logits[0, -1].softmax(-1)
        ids.append(int(torch.multinomial(probabilities, 1, generator=generator)))
    return ids[len(prompt) :]


def _reference(folder: Path, tuner: str) -> tuple[list[float], list[float]]:
    """Return the loss and the mean reward at each step of a plain loop."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    chats = [[{"role": "user", "content": prompt}] for prompt in _PROMPTS]
    prompts = [tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False) for chat in chats]
    stop = tokenizer.convert_tokens_to_ids("<|im_end|>")
    loop = PlainLoop(folder, tuner)
    means: list[float] = []

    def step(number: int) -> float:
        answers = [
            [_sampled(loop.network, prompt, _seed(prompt, number, sample), {stop}) for sample in range(_SAMPLES)]
            for prompt in prompts
        ]
        texts = [[tokenizer.decode([i for i in ids if i != stop]) for ids in group] for group in answers]
        rewards = [[float(bool(re.fullmatch(_PATTERN, text, re.DOTALL))) for text in group] for group in texts]
        means.append(sum(map(sum, rewards)) / (len(_PROMPTS) * _SAMPLES))

        def loss() -> Any:
            total = torch.zeros(())
            for prompt, group, judged in zip(prompts, answers, rewards, strict=True):
                for ids, reward in zip(group, judged, strict=True):
                    advantage = reward - (sum(judged) - reward) / (_SAMPLES - 1)
                    total = total - advantage * loop.logprob([*prompt, *ids], len(prompt))
            return total / (len(_PROMPTS) * _SAMPLES)

        return loop.step(number, loss)

    return [step(number) for number in range(_STEPS)], means


@pytest.mark.parametrize(("tuner", "processes"), _CASES)
def test_every_step_is_that_of_a_plain_loop(
    tuner: str, processes: int, data: Path, tiny_model: Path, tmp_path: Path
) -> None:
    flags = [
        "--model",
        tiny_model,
        "--dataset",
        data,
        "--objective",
        "rloo",
        "--reward",
        "regex",
        "--regex-pattern",
        _PATTERN,
    ]
    flags += ["--rloo-samples", _SAMPLES, "--rloo-max-new-tokens", _TOKENS, *TUNERS[tuner], *FLAGS]
    flags += ["--epochs", _STEPS, "--batch-size", len(_PROMPTS) // processes]
    record = finetuned(tmp_path / "out", *flags, processes=processes)
    losses, rewards = _reference(tiny_model, tuner)
    assert record["loss_unit"] == "answers"
    assert len(set(rewards)) > 1
    assert [value for _, value in record["curves"]["training"]["reward"]] == pytest.approx(rewards)
    assert [loss for _, loss in record["losses"]] == pytest.approx(losses, rel=1e-5, abs=1e-5)


def test_validation_answers_alike_at_each_measurement_and_on_any_number_of_processes(
    data: Path, tiny_model: Path, tmp_path: Path
) -> None:
    few = tmp_path / "few.jsonl"
    few.write_text("\n".join(data.read_text(encoding="utf-8").splitlines()[:3]), encoding="utf-8")
    flags = ["--model", tiny_model, "--dataset", data, "--eval-dataset", few, *_RLOO, ".*e.*", *FLAGS]
    flags += [
        "--reward",
        "regex",
        "--regex-pattern",
        ".*e.*",
        "--rloo-max-new-tokens",
        _TOKENS,
        "--epochs",
        2,
        "--lr",
        1e-12,
    ]
    one = finetuned(tmp_path / "one", *flags, "--batch-size", 4)
    two = finetuned(tmp_path / "two", *flags, "--batch-size", 2, processes=2)
    (_, first), (_, second) = one["curves"]["validation"]["reward"]
    assert 0 < first < 1
    assert first == second  # nothing was learned in between
    assert two["curves"]["validation"]["reward"] == one["curves"]["validation"]["reward"]
    losses = [[loss for _, loss in record["validation_losses"]] for record in (one, two)]
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)


def test_a_resumed_run_samples_what_the_uninterrupted_one_does(data: Path, tiny_model: Path, tmp_path: Path) -> None:
    flags = [
        "--model",
        tiny_model,
        "--dataset",
        data,
        "--objective",
        "rloo",
        "--reward",
        "regex",
        "--regex-pattern",
        _PATTERN,
        *FLAGS,
    ]
    flags += ["--rloo-max-new-tokens", _TOKENS, "--epochs", 4, "--batch-size", 2, "--save-steps", 5]
    whole = finetuned(tmp_path / "out", *flags)
    weights = (tmp_path / "out" / "model.safetensors").read_bytes()
    resumed = finetuned(tmp_path / "out", *flags, "--resume")
    assert resumed["losses"] == whole["losses"]
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == weights


def test_it_asks_for_rewards(lmflow_cli: Callable[..., Any], tiny_model: Path, data: Path, tmp_path: Path) -> None:
    told = lmflow_cli(
        *("finetune", "--model", tiny_model, "--dataset", data, "--objective", "rloo", "--output", tmp_path / "x"),
    )
    assert told.status == 2
    assert "--objective rloo scores answers: add --reward NAME" in told.stderr
