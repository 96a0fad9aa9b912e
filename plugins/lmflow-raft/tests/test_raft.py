"""RAFT against a plain loop, in rounds of several steps, on two processes, cut off and resumed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lmflow_core.testing.references import FLAGS, TUNERS, PlainLoop, dealt, finetuned, kept_samples
from lmflow_raft.options import RaftOptions
from lmflow_raft.selection import best
from lmflow_transformers.api import Sample

_PROMPTS = ["hello", "the quick brown fox", "what is the capital of France?", "no", "yes", "one two three"]
_RAFT = ("--objective", "raft", "--reward", "regex", "--regex-pattern", ".*[aeiou].*")
_SHORT = ("--raft-max-new-tokens", 2, "--raft-samples", 5)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for needed in ("lmflow_datasets", "lmflow_reward", "lmflow_lora", "lmflow_lisa"):
        pytest.importorskip(needed, reason="rows, rewards and tuners come from other plugins")
    file = tmp_path_factory.mktemp("data") / "prompts.jsonl"
    file.write_text("\n".join(json.dumps({"prompt": prompt}) for prompt in _PROMPTS), encoding="utf-8")
    return file


@pytest.mark.parametrize(("tuner", "processes"), [(tuner, n) for tuner in TUNERS for n in (1, 2)])
def test_every_step_learns_what_a_plain_loop_learns_of_the_samples(
    tuner: str, processes: int, data: Path, tiny_model: Path, tmp_path: Path
) -> None:
    flags = ["--model", tiny_model, "--dataset", data, *_RAFT, *_SHORT, *TUNERS[tuner], *FLAGS]
    record = finetuned(tmp_path / "out", *flags, "--epochs", 2, "--batch-size", 2 // processes, processes=processes)
    rounds = kept_samples(tmp_path / "out")
    assert len(rounds) == 2
    learned = [[sample for sample in samples if sample["learned"]] for samples in rounds]
    assert all(learned)
    # Those that are learned are dealt to the three steps of a round: on two processes every second is the other's.
    steps = [step for kept in learned for step in dealt(kept, processes, 3)]
    loop = PlainLoop(tiny_model, tuner)

    def loss(kept: list[dict[str, Any]]) -> Any:
        total = sum(loop.logprob([*s["prompt_ids"], *s["answer_ids"]], len(s["prompt_ids"])) for s in kept)
        return -total / sum(len(s["answer_ids"]) for s in kept)

    wanted = [loop.step(number, lambda kept=kept: loss(kept)) for number, kept in enumerate(steps)]
    assert [loss for _, loss in record["losses"]] == pytest.approx(wanted, rel=1e-5, abs=1e-5)


def test_the_best_answer_to_each_prompt_is_learned_and_told(data: Path, tiny_model: Path, tmp_path: Path) -> None:
    flags = ["--model", tiny_model, "--dataset", data, *_RAFT, *_SHORT, *FLAGS]
    record = finetuned(tmp_path / "out", *flags, "--epochs", 1, "--batch-size", 2)
    (samples,) = kept_samples(tmp_path / "out")
    assert len(samples) == len(_PROMPTS) * 5
    for number in range(len(_PROMPTS)):
        group = [sample for sample in samples if sample["prompt"] == number]
        rewards = [sample["reward"] for sample in group]
        best = [at == rewards.index(max(rewards)) and len(set(rewards)) > 1 for at in range(5)]
        assert [sample["learned"] for sample in group] == best
        assert {sample["messages"][0]["content"] for sample in group} <= set(_PROMPTS)
        assert {sample["reward"] for sample in group} <= {0.0, 1.0}
    ((step, reward),) = record["curves"]["training"]["sampled_reward"]
    assert (step, reward) == (0, pytest.approx(sum(sample["reward"] for sample in samples) / len(samples)))
    assert 0 < record["metrics"]["answering_share_of_time"] < 1


def test_a_run_that_is_cut_off_within_a_round_goes_on_with_its_samples(
    data: Path, tiny_model: Path, tmp_path: Path
) -> None:
    flags = ["--model", tiny_model, "--dataset", data, *_RAFT, *_SHORT, *FLAGS, "--batch-size", 2, "--save-steps", 1]
    whole = finetuned(tmp_path / "whole", *flags, "--epochs", 2)
    finetuned(tmp_path / "out", *flags, "--epochs", 2, "--max-steps", 2)
    first = kept_samples(tmp_path / "out")
    resumed = finetuned(tmp_path / "out", *flags, "--epochs", 2, "--resume")
    assert first == kept_samples(tmp_path / "whole")[:1]
    assert kept_samples(tmp_path / "out") == kept_samples(tmp_path / "whole")
    assert resumed["losses"] == whole["losses"]
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "out")]
    assert weights[0] == weights[1]


def test_validation_is_the_mean_reward_of_greedy_answers(data: Path, tiny_model: Path, tmp_path: Path) -> None:
    flags = ["--model", tiny_model, "--dataset", data, "--eval-dataset", data, *_RAFT, *_SHORT, *FLAGS]
    record = finetuned(tmp_path / "out", *flags, "--epochs", 2, "--batch-size", 6, "--lr", 1e-12)
    first, second = record["curves"]["validation"]["reward"]
    assert first[1] == second[1]
    assert first[1] * len(_PROMPTS) == pytest.approx(round(first[1] * len(_PROMPTS)))


def test_the_script_of_the_original_works_with_the_launcher_replaced(
    data: Path, tiny_model: Path, tmp_path: Path
) -> None:
    line = f"""--model_name_or_path {tiny_model} --num_raft_iteration 3 --learning_rate 2e-5
        --lr_scheduler_type constant --dataset_path {data} --output_reward_path {tmp_path / "rewards"}
        --overwrite_output_dir --run_name raft
        --num_train_epochs 4 --per_device_train_batch_size 2 --per_device_eval_batch_size 1
        --validation_split_percentage 0 --logging_steps 1 --do_train --ddp_timeout 72000 --save_steps 7777
        --dataloader_num_workers 1 --preprocessing_num_workers 12 --inference_batch_size_per_device 1
        --collection_strategy top --raft_batch_size 4 --output_max_length 2 --top_reward_percentage 0.5"""
    record = finetuned(tmp_path / "out", *_RAFT, *line.split())
    rounds = kept_samples(tmp_path / "out")
    assert [len(samples) for samples in rounds] == [4 * 4, 2 * 4, 4 * 4]  # of six prompts, four at a time
    assert [sum(sample["learned"] for sample in samples) for samples in rounds] == [8, 4, 8]
    assert record["steps"] == 2 + 1 + 2
    assert record["options"]["batch_size"] == 2


def _sample(prompt: int, reward: float) -> Sample:
    return Sample(prompt, [], [1], [2], reward)


def _learned(rewards: dict[int, list[float]], **options: Any) -> list[float]:
    samples = [_sample(prompt, reward) for prompt, given in rewards.items() for reward in given]
    return [samples[at].reward for at in best(samples, RaftOptions(**options))]


def test_selection() -> None:
    rewards = {0: [0.1, 0.3, 0.2], 1: [0.5, 0.5, 0.5], 2: [0.9, math.nan, 0.8], 3: [math.nan] * 3}
    assert _learned(rewards) == [0.3, 0.9]
    assert _learned(rewards, raft_threshold=0.5) == [0.9]
    assert _learned(rewards, raft_selection="top", raft_top_share=0.25) == [0.9, 0.8]
    every = sorted(_learned(rewards, raft_selection="top", raft_top_share=1.0))
    assert every == [0.1, 0.2, 0.3, 0.5, 0.5, 0.5, 0.8, 0.9]


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (("--objective", "raft"), "--objective raft scores answers: add --reward NAME"),
        ((*_RAFT, "--raft-samples", "1"), "--raft-samples must be at least 2 for --raft-selection local"),
        (("--objective", "raft", "--reward", "exact"), "row 1: reward exact: the row has no field 'answer'"),
        (
            (*_RAFT[:2], "--reward", "arithmetic", "--arithmetic-field", "prompt", "--eval-share", "0.5"),
            "reward arithmetic: the field 'prompt' holds no number",
        ),
        (("--objective", "sft", "--reward", "length"), "--reward: --objective sft scores no answers; leave it out"),
    ],
)
def test_wrong_requests_are_told(
    flags: tuple[str, ...],
    problem: str,
    lmflow_cli: Callable[..., Any],
    data: Path,
    tiny_model: Path,
    tmp_path: Path,
) -> None:
    told = lmflow_cli("finetune", "--model", tiny_model, "--dataset", data, "--output", tmp_path / "x", *flags)
    assert told.status == 2
    assert problem in told.stderr
    assert not (tmp_path / "x").exists()
