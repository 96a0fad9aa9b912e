"""Rounds of DPO on the model's own answers, against a plain loop over the samples that were kept."""

from __future__ import annotations

import itertools
import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import logsigmoid

from lmflow_core.testing.references import FLAGS, TUNERS, PlainLoop, dealt, finetuned, kept_samples
from lmflow_preference.iterative import IterativeDpoObjective
from lmflow_preference.options import IterativeDpoOptions
from lmflow_transformers.api import Sample

_BETA, _STEPS = 0.4, 3
_PROMPTS = ["hello", "the quick brown fox", "what is the capital of France?", "no", "yes", "one two three"]


@pytest.fixture
def flags(rows: Callable[..., Path], tiny_model: Path) -> list[object]:
    pytest.importorskip("lmflow_reward", reason="answers are scored by it")
    sampled = ["--iterative-max-new-tokens", 4, "--iterative-samples", 5, "--dpo-beta", _BETA, *FLAGS]
    reward = ["--reward", "regex", "--regex-pattern", ".*[aeiou].*"]
    data = rows([{"prompt": prompt} for prompt in _PROMPTS])
    return ["--model", tiny_model, "--dataset", data, "--objective", "iterative-dpo", *reward, *sampled]


def _pairs(samples: list[dict[str, Any]]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return the best and the worst answer to each prompt that has both, the first of several."""
    pairs = []
    for _, each in itertools.groupby(samples, lambda sample: sample["prompt"]):
        group = list(each)
        rewards = [sample["reward"] for sample in group]
        assert sum(sample["learned"] for sample in group) == (2 if len(set(rewards)) > 1 else 0)
        if len(set(rewards)) > 1:
            kept = sorted((sample for sample in group if sample["learned"]), key=lambda sample: -sample["reward"])
            assert [kept[0]["reward"], kept[1]["reward"]] == [max(rewards), min(rewards)]
            pairs.append((kept[0], kept[1]))
    return pairs


def _logprob(loop: PlainLoop, sample: dict[str, Any]) -> Any:
    return loop.logprob([*sample["prompt_ids"], *sample["answer_ids"]], len(sample["prompt_ids"]))


@pytest.mark.parametrize(
    ("tuner", "reference", "processes"),
    [("full", "start", 1), ("full", "round", 1), ("lora", "start", 1), ("full", "start", 2)],
)
def test_every_step_is_that_of_a_plain_loop(
    tuner: str, reference: str, processes: int, flags: list[object], tiny_model: Path, tmp_path: Path
) -> None:
    if tuner == "lora":
        pytest.importorskip("lmflow_lora", reason="an adapter is set aside for the reference")
    mine = [*flags, "--sampling_paired_method", "max_min", "--iterative-reference", reference, *TUNERS[tuner]]
    mine += ["--iterative-kl", "--iterative-rounds", 2, "--batch-size", 2 // processes]
    record = finetuned(tmp_path / "out", *mine, processes=processes)
    loop, start = PlainLoop(tiny_model, tuner), PlainLoop(tiny_model, tuner)
    wanted, distances = [], []
    rounds = kept_samples(tmp_path / "out")
    assert len(rounds) == 2
    for number, samples in enumerate(rounds):
        pairs = _pairs(samples)
        assert pairs
        with torch.no_grad():
            before = start if reference == "start" else loop
            distances.append(sum(float(_logprob(loop, s) - _logprob(before, s)) for s in samples) / len(samples))
            for sample in itertools.chain.from_iterable(pairs):
                sample["known"] = float(_logprob(before, sample))
                assert sample["numbers"]["reference_logprobs"] == [pytest.approx(sample["known"], abs=1e-4)]
        for step, kept in enumerate(dealt(pairs, processes, _STEPS)):

            def loss(kept: list[Any] = kept, samples: list[Any] = samples) -> Any:
                # A step without pairs has gradients of zero.
                total = _logprob(loop, samples[0]) * 0.0
                for chosen, rejected in kept:
                    gains = [_logprob(loop, sample) - sample["known"] for sample in (chosen, rejected)]
                    total = total - logsigmoid(_BETA * (gains[0] - gains[1]))
                return total / max(1, len(kept))

            wanted.append(loop.step(_STEPS * number + step, loss))
    assert [loss for _, loss in record["losses"]] == pytest.approx(wanted, rel=1e-4, abs=1e-4)
    curves = record["curves"]["training"]
    assert [step for step, _ in curves["sampled_reward"]] == [0, 3]
    assert [value for _, value in curves["kl"]] == pytest.approx(distances, abs=1e-4)
    assert (distances[1] != 0) == (reference == "start")
    for name in ("generating", "scoring", "training"):
        assert all(seconds > 0 for _, seconds in curves[f"seconds_{name}"])


_KILLED = """
import os, signal, sys
import lmflow_transformers.training.sampled.rounds as rounds
from lmflow_core.cli.main import run
from lmflow_transformers.training.trainer import LossTrainer

when = sys.argv.pop(1)
answered, training_step, steps = rounds.answered, LossTrainer.training_step, []

def answering(job, examples, sampling, step):
    found = answered(job, examples, sampling, step)
    if when == "generating" and step:
        os.kill(os.getpid(), signal.SIGKILL)
    return found

def stepping(*arguments):
    steps.append(1)
    if when == "training" and len(steps) == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return training_step(*arguments)

rounds.answered, LossTrainer.training_step = answering, stepping
run(sys.argv[1:])
"""


@pytest.mark.parametrize("when", ["generating", "training"])
def test_a_run_that_was_killed_goes_on_to_the_same_weights(when: str, flags: list[object], tmp_path: Path) -> None:
    mine = [*flags, "--epochs", 2, "--batch-size", 2, "--save-steps", 1]
    finetuned(tmp_path / "whole", *mine)
    broken = tmp_path / "broken"
    command = [sys.executable, "-c", _KILLED, when, "finetune", *map(str, mine), "--output", str(broken)]
    assert subprocess.run(command, capture_output=True, timeout=120).returncode == -9
    assert not (broken / "run.json").exists()
    assert len(kept_samples(broken)) == (1 if when == "generating" else 2)
    finetuned(broken, *mine, "--resume")
    assert kept_samples(broken) == kept_samples(tmp_path / "whole")
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "broken")]
    assert weights[0] == weights[1]


def _paired(pairing: str, rewards: list[float]) -> list[tuple[int, ...]]:
    samples = [Sample(0, [], [1], [number], reward) for number, reward in enumerate(rewards)]
    lessons = IterativeDpoObjective(IterativeDpoOptions(dpo_pairing=pairing)).pairs(samples)
    return [lesson.places for lesson in lessons]


def test_pairs_are_those_of_the_pairing() -> None:
    rewards = [0.5, 0.1, math.nan, 0.9, 0.3]
    assert _paired("max_min", rewards) == [(3, 1)]
    assert _paired("max_max", rewards) == [(3, 0)]
    ((best, other),) = _paired("max_random", rewards)
    assert best == 3
    assert other in (0, 1, 4)
    ((one, two),) = _paired("random", rewards)
    assert rewards[one] > rewards[two]
    assert _paired("max_min", [0.5, 0.5, math.nan]) == []
    assert _paired("max_min", [0.5]) == []


def test_too_long_prompts_and_rounds_that_teach_nothing_are_passed_over(
    flags: list[object], capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    mine = [*flags, "--regex-pattern", "no such answer", "--max-prompt-length", 20, "--max-steps", 1]
    record = finetuned(tmp_path / "out", *mine)
    told = capfd.readouterr().err
    assert "1 of 6 prompts left out: 1 as the prompt is longer than --max-prompt-length 20" in told
    assert "; 5 prompts whose answers are all worth the same" in told
    assert record["losses"] == [[1, 0.0]]


def test_validation_is_compared_by_the_start(flags: list[object], tmp_path: Path) -> None:
    mine = [*flags, "--eval-dataset", flags[3], "--epochs", 1, "--batch-size", 6]
    record = finetuned(tmp_path / "out", *mine)
    ((_, loss),) = record["validation_losses"]
    assert 0 < loss != pytest.approx(0.693147, abs=1e-3)


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        (("--iterative-samples", 1), "--iterative-samples: 1 is below the smallest value allowed, 2"),
        (("--iterative-reference", "round", "--reference-model", "x"), "--iterative-reference round is without"),
        (("--initial_iter_idx", 2), "--initial_iter_idx 2 is not available: a run that was cut off goes on with"),
        (("--do_scoring", "False"), "--do_scoring False is not available: a round answers, scores and learns"),
    ],
)
def test_wrong_requests_are_told(
    wrong: tuple[object, ...], problem: str, flags: list[object], lmflow_cli: Callable[..., Any], tmp_path: Path
) -> None:
    told = lmflow_cli("finetune", *flags, "--output", tmp_path / "x", *wrong)
    assert told.status == 2
    assert problem in told.stderr


def test_the_script_of_the_original_works_with_the_launcher_replaced(
    flags: list[object], tiny_model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    rows = [{"prompt": prompt} for prompt in _PROMPTS[:2]]
    for name, row in zip(("one", "two"), rows, strict=True):
        (folder / f"{name}.json").write_text(json.dumps([row]), encoding="utf-8")
    line = f"""--model_name_or_path {tiny_model} --reference_model_name_or_path {tiny_model} --dataset_path_list
        {folder / "one.json"} {folder / "two.json"} --initial_iter_idx 0 --do_response_generation True --do_scoring True
        --do_dpo_align True --num_output_sequences 3 --temperature 1.0 --top_p 1.0 --max_new_tokens 4
        --use_beam_search False --reward_model_inference_batch_size 10 --sampling_paired_method max_min
        --loss_type sigmoid --num_train_epochs 1 --per_device_train_batch_size 1 --max_prompt_length 1000"""
    reward = ["--reward", "regex", "--regex-pattern", ".*[aeiou].*"]
    finetuned(tmp_path / "out", "--objective", "iterative-dpo", *reward, *line.split())
    (samples,) = kept_samples(tmp_path / "out")
    assert len(samples) == 2 * 3
