"""RAFT++, Reinforce-Rej and GRPO against a plain loop over the samples that were kept."""

from __future__ import annotations

import itertools
import json
import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lmflow_core.testing.references import FLAGS, TUNERS, PlainLoop, dealt, finetuned, kept_samples
from lmflow_raft.methods import METHODS
from lmflow_raft.options import RaftOptions
from lmflow_transformers.api import Sample

_PROMPTS = ["hello", "the quick brown fox", "what is the capital of France?", "no", "yes", "one two three"]
_LOW, _HIGH, _STEPS = 0.02, 0.03, 3


def _raft_plus(rewards: list[float]) -> list[float | None]:
    first = rewards.index(max(rewards))
    return [1.0 if at == first and len(set(rewards)) > 1 else None for at in range(len(rewards))]


def _reinforce_rej(rewards: list[float]) -> list[float | None]:
    right = [reward >= 1.0 for reward in rewards]
    return [None] * len(rewards) if all(right) or not any(right) else [1.0 if yes else -1.0 for yes in right]


def _grpo(rewards: list[float]) -> list[float | None]:
    # As TRL's GRPOTrainer has it: torch.std divides by n - 1, and 1e-4 is added.
    values = torch.tensor(rewards, dtype=torch.float64)
    if float(values.std()) == 0:
        return [None] * len(rewards)
    return ((values - values.mean()) / (values.std() + 1e-4)).tolist()


_ADVANTAGES = {"raft++": _raft_plus, "reinforce-rej": _reinforce_rej, "grpo": _grpo}


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> list[object]:
    for needed in ("lmflow_datasets", "lmflow_reward", "lmflow_lora"):
        pytest.importorskip(needed, reason="rows, rewards and tuners come from other plugins")
    file = tmp_path_factory.mktemp("data") / "prompts.jsonl"
    file.write_text("\n".join(json.dumps({"prompt": prompt}) for prompt in _PROMPTS), encoding="utf-8")
    sampled = ["--raft-max-new-tokens", 4, "--raft-samples", 5]
    clipped = ["--raft-clip-low", _LOW, "--raft-clip-high", _HIGH]
    reward = ["--reward", "regex", "--regex-pattern", ".*[aeiou].*"]
    return ["--model", tiny_model, "--dataset", file, "--objective", "raft", *reward, *sampled, *clipped, *FLAGS]


def _lessons(samples: list[dict[str, Any]], method: str) -> list[list[tuple[dict[str, Any], float]]]:
    """Return the answers that are learned with their advantages, those of one prompt together."""
    lessons = []
    for _, each in itertools.groupby(samples, lambda sample: sample["prompt"]):
        group = list(each)
        advantages = _ADVANTAGES[method]([sample["reward"] for sample in group])
        kept = [(sample, a) for sample, a in zip(group, advantages, strict=True) if a is not None]
        assert [sample for sample, _ in kept] == [sample for sample in group if sample["learned"]]
        if kept:
            lessons.append(kept)
    return lessons


def _logprobs(loop: PlainLoop, sample: dict[str, Any]) -> Any:
    return loop.logprobs([*sample["prompt_ids"], *sample["answer_ids"]], len(sample["prompt_ids"]))


@pytest.mark.parametrize(
    ("method", "tuner", "processes"),
    [("raft++", "full", 1), ("reinforce-rej", "full", 1), ("grpo", "full", 1), ("grpo", "lora", 1)],
)
def test_every_step_is_that_of_a_plain_loop(
    method: str, tuner: str, processes: int, flags: list[object], tiny_model: Path, tmp_path: Path
) -> None:
    mine = [*flags, "--raft-method", method, *TUNERS[tuner], "--epochs", 2, "--batch-size", 2 // processes]
    record = finetuned(tmp_path / "out", *mine, processes=processes)
    loop = PlainLoop(tiny_model, tuner)
    wanted, clipped = [], []
    for number, samples in enumerate(kept_samples(tmp_path / "out")):
        lessons = _lessons(samples, method)
        assert lessons
        with torch.no_grad():
            for sample, _ in itertools.chain.from_iterable(lessons):
                sample["old"] = _logprobs(loop, sample)
                assert sample["numbers"]["old_logprobs"] == pytest.approx(sample["old"].tolist(), abs=1e-4)
        for step, kept in enumerate(dealt(lessons, processes, _STEPS)):
            pairs = [pair for lesson in kept for pair in lesson]

            def loss(pairs: list[Any] = pairs, samples: list[Any] = samples) -> Any:
                # A step without lessons has gradients of zero.
                total, tokens = _logprobs(loop, samples[0]).sum() * 0.0, 0
                for sample, advantage in pairs:
                    ratios = torch.exp(_logprobs(loop, sample) - sample["old"])
                    bounded = torch.clamp(ratios, 1 - _LOW, 1 + _HIGH)
                    each = torch.min(ratios * advantage, bounded * advantage)
                    clipped.append(int((each != ratios * advantage).sum()))
                    total, tokens = total - each.sum(), tokens + len(each)
                return total / max(1, tokens)

            wanted.append(loop.step(_STEPS * number + step, loss))
    assert [loss for _, loss in record["losses"]] == pytest.approx(wanted, rel=1e-4, abs=1e-4)
    assert any(clipped)
    told = [value for _, value in record["curves"]["training"]["clipped"]]
    assert max(told) > 0 == told[0]


def test_a_round_of_one_step_measures_nothing_and_moves_as_raft(
    flags: list[object], capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Where all ratios are 1 the gradient of RAFT++ is that of RAFT."""
    one = [*flags, "--raft-temperature", 0.7, "--epochs", 1, "--batch-size", 6]
    finetuned(tmp_path / "plain", *one)
    record = finetuned(tmp_path / "ratios", *one, "--raft-method", "raft++")
    assert not any("numbers" in sample for sample in kept_samples(tmp_path / "ratios")[0])
    assert [loss for _, loss in record["losses"]] == pytest.approx([-1.0])
    from safetensors.torch import load_file

    plain, ratios = (load_file(tmp_path / name / "model.safetensors") for name in ("plain", "ratios"))
    for name, weights in plain.items():
        torch.testing.assert_close(ratios[name], weights, rtol=1e-4, atol=1e-5)
    assert "temperature 1" not in capfd.readouterr().err


def test_ratios_of_another_temperature_are_told(
    flags: list[object], capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    several = [*flags, "--raft-method", "grpo", "--raft-temperature", 0.7, "--epochs", 1, "--batch-size", 3]
    record = finetuned(tmp_path / "out", *several, "--eval-dataset", flags[3])
    told = "answers are sampled at temperature 0.7; ratios compare probabilities at temperature 1"
    assert told in capfd.readouterr().err
    ((_, reward),) = record["curves"]["validation"]["reward"]
    assert 0 <= reward <= 1


def test_a_run_that_is_cut_off_within_a_round_keeps_the_ratios_of_its_beginning(
    flags: list[object], tmp_path: Path
) -> None:
    several = [*flags, "--raft-method", "reinforce-rej", "--epochs", 2, "--batch-size", 2, "--save-steps", 1]
    whole = finetuned(tmp_path / "whole", *several)
    finetuned(tmp_path / "out", *several, "--max-steps", 2)
    resumed = finetuned(tmp_path / "out", *several, "--resume")
    assert kept_samples(tmp_path / "out") == kept_samples(tmp_path / "whole")
    assert resumed["losses"] == whole["losses"]
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "out")]
    assert weights[0] == weights[1]


def _learned(method: str, rewards: dict[int, list[float]]) -> list[tuple[tuple[int, ...], tuple[float, ...]]]:
    samples = [Sample(prompt, [], [1], [2], reward) for prompt, given in rewards.items() for reward in given]
    lessons = METHODS[method](samples, RaftOptions(raft_method=method, raft_right_reward=0.5))
    return [(lesson.places, lesson.numbers["advantage"]) for lesson in lessons]


def test_prompts_that_teach_nothing_are_left_out() -> None:
    rewards = {0: [1.0, 0.0, math.nan], 1: [0.7, 0.9], 2: [0.1, 0.2], 3: [math.nan, math.nan], 4: [0.5, 0.5]}
    assert _learned("reinforce-rej", rewards) == [((0, 1), (1.0, -1.0))]
    deviation = statistics.stdev([0.7, 0.9]) + 1e-4
    places, advantages = zip(*_learned("grpo", rewards), strict=True)
    assert places == ((0, 1), (3, 4), (5, 6))
    assert advantages[1] == pytest.approx((-0.1 / deviation, 0.1 / deviation))


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        (("--raft-method", "grpo", "--raft-samples", 1), "--raft-samples must be at least 2 for --raft-method grpo"),
        (("--raft-method", "grpo", "--raft-threshold", 0.5), "--raft-threshold belongs to raft and raft++"),
        (("--raft-method", "ppo"), "is not one of raft, raft++, reinforce-rej, grpo"),
    ],
)
def test_wrong_requests_are_told(
    wrong: tuple[object, ...], problem: str, flags: list[object], lmflow_cli: Callable[..., Any], tmp_path: Path
) -> None:
    told = lmflow_cli("finetune", *flags, "--output", tmp_path / "x", *wrong)
    assert told.status == 2
    assert problem in told.stderr
