"""``lmflow evaluate --reward``: what a model's own answers are worth, beside plain arithmetic and transformers."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from lmflow_core.contracts.estimates import Estimate, clustered_mean, clustered_share
from lmflow_core.testing.tiny import make_tiny_model, make_tokenizer

Run = Callable[..., Any]
_PROMPTS = [{"prompt": f"say {n}", "answer": "a"} for n in range(5)]
_Z = 1.959963984540054


@pytest.fixture
def prompts(write_rows: Callable[..., Path]) -> Path:
    return write_rows(_PROMPTS, "prompts.jsonl")


def _evaluated(run: Run, model: Path, prompts: Path, *flags: object) -> dict[str, Any]:
    told = run("evaluate", "--model", model, "--dataset", prompts, "--max-new-tokens", 6, *flags, "--json")
    assert told.status == 0, told.stderr
    found: dict[str, Any] = told.json()
    return found


def _rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def _words(texts: Sequence[str], count: int) -> float:
    runs = [tuple(t.split()[n : n + count]) for t in texts for n in range(len(t.split()) - count + 1)]
    return len(set(runs)) / len(runs)


def test_figures_are_those_of_the_samples_that_are_kept(
    lmflow_cli: Run, peaked_model: Path, prompts: Path, tmp_path: Path
) -> None:
    file, output = tmp_path / "samples.jsonl", tmp_path / "told.json"
    rewards = ["--reward", "regex=2,length=0.5", "--regex-pattern", ".*[ae].*", "--length-least", 2]
    flags = [*rewards, "--samples", 4, "--samples-file", file, "--output-file", output]
    found = _evaluated(lmflow_cli, peaked_model, prompts, *flags)
    assert json.loads(output.read_text(encoding="utf-8")) == found
    rows = _rows(file)
    assert [(row["index"], row["sample"]) for row in rows] == [(n, k) for n in range(5) for k in range(4)]
    assert [row["messages"][-1]["content"] for row in rows[::4]] == [row["prompt"] for row in _PROMPTS]
    for row in rows:
        assert row["rewards"]["regex"] == float(any(letter in row["answer"] for letter in "ae"))
        assert row["rewards"]["length"] == min(1, len(row["answer"].split()) / 2)
        assert row["score"] == pytest.approx(2 * row["rewards"]["regex"] + row["rewards"]["length"] / 2)
    counts = ("prompts", "answers", "too_long", "unscored", "at_least", "kl")
    assert [found[name] for name in counts] == [5, 20, 0, 0, 2.5, None]
    means = [statistics.fmean(row["score"] for row in rows[at : at + 4]) for at in range(0, 20, 4)]
    # With as many answers to each prompt, a cluster's mean is a sample of its own.
    reach = _Z * statistics.stdev(means) / math.sqrt(5)
    mean = statistics.fmean(means)
    assert reach > 0
    assert found["reward"] == pytest.approx({"mean": mean, "low": mean - reach, "high": mean + reach})
    assert found["rewards"]["regex"]["mean"] == pytest.approx(statistics.fmean(row["rewards"]["regex"] for row in rows))
    assert found["share_at_least"]["mean"] == pytest.approx(statistics.fmean(row["score"] == 2.5 for row in rows))
    assert found["tokens"]["mean"] == statistics.fmean(row["tokens"] for row in rows)
    assert found["cut_off"]["mean"] == statistics.fmean(row["finish_reason"] == "length" for row in rows)
    texts = [row["answer"] for row in rows]
    alike = [len(set(texts[at : at + 4])) / 4 for at in range(0, 20, 4)]
    assert found["distinct_answers"]["mean"] == pytest.approx(statistics.fmean(alike))
    assert (found["distinct_1"], found["distinct_2"]) == pytest.approx((_words(texts, 1), _words(texts, 2)))


def test_the_table_tells_what_the_document_tells(lmflow_cli: Run, peaked_model: Path, prompts: Path) -> None:
    command = ["evaluate", "--model", peaked_model, "--dataset", prompts, "--max-new-tokens", 6, "--samples", 3]
    command += ["--reward", "length", "--length-least", 3, "--reward-at-least", 0.5]
    found, table = lmflow_cli(*command, "--json").json(), lmflow_cli(*command)
    assert "sampled at temperature 1" in table.stderr
    for name, key in (("reward", "reward"), ("worth 0.5 or more", "share_at_least"), ("tokens", "tokens")):
        (line,) = (line for line in table.stdout.splitlines() if line.startswith(f"{name}  "))
        told = found[key]
        assert line.split() == [*name.split(), f"{told['mean']:.4f}", f"{told['low']:.4f}", "to", f"{told['high']:.4f}"]
    assert "5 prompts, 15 answers" in table.stdout


def test_answers_are_those_of_generate(lmflow_cli: Run, peaked_model: Path, prompts: Path, tmp_path: Path) -> None:
    file, answers = tmp_path / "samples.jsonl", tmp_path / "answers.jsonl"
    for flags in ([], ["--temperature", 0.9, "--system", "be brief"]):
        shared = ["--model", peaked_model, "--max-new-tokens", 6, *flags]
        generated = lmflow_cli("generate", *shared, "--prompts", prompts, "--output", answers, "--overwrite")
        assert generated.status == 0, generated.stderr
        _evaluated(lmflow_cli, peaked_model, prompts, "--reward", "length", "--samples-file", file, *flags)
        assert [row["answer"] for row in _rows(file)] == [row["answer"] for row in _rows(answers)]


def test_conversations_are_prompts_and_their_last_answer_is_the_rewards(
    lmflow_cli: Run, peaked_model: Path, write_rows: Callable[..., Path], tmp_path: Path
) -> None:
    file = tmp_path / "samples.jsonl"
    sums = write_rows([{"question": "What are two and three?", "answer": "5\n#### 5"}], "sums.jsonl")
    found = _evaluated(lmflow_cli, peaked_model, sums, "--reward", "arithmetic", "--samples-file", file)
    (row,) = _rows(file)
    assert row["messages"] == [{"role": "user", "content": "What are two and three?"}]
    assert found["reward"] == {"mean": row["score"], "low": None, "high": None}


def _logprob(model: Path, prompt: str, answer: Sequence[int]) -> float:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    network: Any = AutoModelForCausalLM.from_pretrained(model)
    text = f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
    ids = [*tokenizer(text, add_special_tokens=False).input_ids, *answer]
    with torch.no_grad():
        found = network(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
    return float(sum(found[-len(answer) + at, token] for at, token in enumerate(answer)))


def _exact_kl(model: Path, reference: Path, prompt: str) -> float:
    """Return the divergence of the two distributions of an answer of one token."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    text = f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
    logs = []
    for folder in (model, reference):
        network: Any = AutoModelForCausalLM.from_pretrained(folder)
        ids = AutoTokenizer.from_pretrained(folder)(text, add_special_tokens=False).input_ids
        with torch.no_grad():
            logs.append(network(torch.tensor([ids])).logits[0, -1].double().log_softmax(-1))
    return float((logs[0].exp() * (logs[0] - logs[1])).sum())


def test_the_distance_to_a_reference_estimates_the_divergence(
    lmflow_cli: Run, tiny_model: Path, prompts: Path, tmp_path: Path
) -> None:
    other = make_tiny_model(tmp_path / "other", seed=3, sharpness=8.0)
    flags = ["--reward", "length", "--samples", 60, "--max-new-tokens", 1]
    found = _evaluated(lmflow_cli, tiny_model, prompts, *flags, "--reference-model", other)
    exact = statistics.fmean(_exact_kl(tiny_model, other, row["prompt"]) for row in _PROMPTS)
    assert exact > 0.05
    assert found["kl"]["low"] < exact < found["kl"]["high"]
    assert found["kl"]["high"] - found["kl"]["low"] < exact
    assert found["kl_per_token"] == found["kl"]
    assert found["kl_is_unbiased"] is True


def test_log_probabilities_are_those_of_plain_transformers(
    lmflow_cli: Run, tiny_model: Path, prompts: Path, tmp_path: Path
) -> None:
    other, file = make_tiny_model(tmp_path / "other", seed=3), tmp_path / "samples.jsonl"
    flags = ["--reward", "length", "--temperature", 1, "--logprobs", 0, "--samples-file", file]
    found = _evaluated(lmflow_cli, tiny_model, prompts, *flags, "--reference-model", other)
    rows = _rows(file)
    tokenizer = make_tokenizer()
    ids = [tokenizer(row["answer"], add_special_tokens=False).input_ids for row in rows]
    compared = 0
    for row, asked, answer in zip(rows, _PROMPTS, ids, strict=True):
        if len(answer) == row["tokens"]:  # else the text was tokenised otherwise than it was sampled
            compared += 1
            assert row["logprob"] == pytest.approx(_logprob(tiny_model, asked["prompt"], answer), abs=1e-4)
            assert row["reference_logprob"] == pytest.approx(_logprob(other, asked["prompt"], answer), abs=1e-4)
    assert compared
    ratios = [row["logprob"] - row["reference_logprob"] for row in rows]
    assert found["kl"]["mean"] == pytest.approx(statistics.fmean(ratios))
    assert found["kl_per_token"]["mean"] == pytest.approx(sum(ratios) / sum(row["tokens"] for row in rows))


def test_a_model_is_not_far_from_itself_and_greedy_answers_tell_no_divergence(
    lmflow_cli: Run, tiny_model: Path, prompts: Path
) -> None:
    flags = ["--reward", "length", "--reference-model", tiny_model]
    found = _evaluated(lmflow_cli, tiny_model, prompts, *flags, "--samples", 2)
    assert found["kl"] == pytest.approx({"mean": 0, "low": 0, "high": 0}, abs=1e-6)
    told = lmflow_cli("evaluate", "--model", tiny_model, "--dataset", prompts, "--max-new-tokens", 4, *flags)
    assert "no estimate of the KL divergence" in told.stderr
    for changed in (["--temperature", 0.7], ["--temperature", 1, "--top-p", 0.9], ["--temperature", 1, "--top-k", 5]):
        assert _evaluated(lmflow_cli, tiny_model, prompts, *flags, *changed)["kl_is_unbiased"] is False


def test_answers_that_no_reward_scores_are_counted(
    lmflow_cli: Run, tiny_model: Path, write_rows: Callable[..., Path], tmp_path: Path
) -> None:
    judge = _judge(tmp_path / "judge", max_position_embeddings=48)
    rows = write_rows([{"prompt": "hi"}, {"prompt": "hi " * 40}, {"prompt": "ho"}], "prompts.jsonl")
    file = tmp_path / "samples.jsonl"
    flags = ["--reward", "model", "--reward-model", judge, "--samples-file", file]
    found = _evaluated(lmflow_cli, tiny_model, rows, *flags)
    assert (found["answers"], found["unscored"], found["at_least"], found["share_at_least"]) == (3, 1, None, None)
    scores = [row["score"] for row in _rows(file)]
    assert scores[1] is None
    assert found["reward"]["mean"] == pytest.approx((scores[0] + scores[2]) / 2)


def _judge(folder: Path, **shape: Any) -> Path:
    from transformers import LlamaConfig, LlamaForSequenceClassification

    tokenizer = make_tokenizer()
    base = LlamaConfig.from_pretrained(make_tiny_model(folder.with_name("base"), **shape))
    base.num_labels, base.pad_token_id = 1, 0
    torch.manual_seed(3)
    LlamaForSequenceClassification(base).save_pretrained(folder)
    tokenizer.pad_token = "<|endoftext|>"
    tokenizer.save_pretrained(folder)
    return folder


def test_prompts_that_are_longer_than_the_context_are_counted(
    lmflow_cli: Run, tiny_model: Path, write_rows: Callable[..., Path]
) -> None:
    long = {"prompt": "word " * 300}
    found = _evaluated(lmflow_cli, tiny_model, write_rows([{"prompt": "hi"}, long], "a.jsonl"), "--reward", "length")
    assert (found["prompts"], found["too_long"]) == (1, 1)
    told = lmflow_cli("evaluate", "--model", tiny_model, "--dataset", write_rows([long]), "--reward", "length")
    assert told.status == 2
    assert "no prompt can be answered: all 1 are longer than the context of the model" in told.stderr


def test_json_can_be_asked_for_and_scored(
    lmflow_cli: Run, tiny_model: Path, write_rows: Callable[..., Path], tmp_path: Path
) -> None:
    schema = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"], "additionalProperties": False}
    file = tmp_path / "schema.json"
    file.write_text(json.dumps(schema), encoding="utf-8")
    prompts = write_rows([{"prompt": "hi"}], "prompts.jsonl")
    flags = ["--reward", "json-schema", "--json-schema-file", file, "--max-new-tokens", 60]
    assert _evaluated(lmflow_cli, tiny_model, prompts, *flags)["reward"]["mean"] < 1
    assert _evaluated(lmflow_cli, tiny_model, prompts, *flags, "--json-schema", file)["reward"]["mean"] == 1


@pytest.mark.parametrize(
    ("row", "flags", "told"),
    [
        ({"text": "once"}, ["--reward", "length"], "row 1: a text example has no prompt to answer"),
        (
            {"instruction": "hi", "chosen": "yes", "rejected": "no"},
            ["--reward", "length"],
            "row 1: a preference example has no prompt to answer",
        ),
        ({"prompt": "hi"}, ["--reward", "exact"], "row 1: reward exact: the row has no field 'answer'"),
        ({"prompt": "hi"}, ["--samples", "2"], "--samples belongs to 'lmflow evaluate --reward': add --reward"),
        ({"prompt": "hi"}, ["--reward", "length", "--context", "8"], "unknown option --context"),
    ],
)
def test_what_cannot_be_measured_is_told_before_any_work(
    row: dict[str, str],
    flags: list[str],
    told: str,
    lmflow_cli: Run,
    write_rows: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    tiny_model: Path,
) -> None:
    from lmflow_transformers.models import CausalModel

    monkeypatch.setattr(CausalModel, "load", lambda self: pytest.fail("weights are read"))
    refused = lmflow_cli("evaluate", "--model", tiny_model, "--dataset", write_rows([row], "rows.jsonl"), *flags)
    assert refused.status == 2
    assert told in refused.stderr


def test_a_reference_with_another_tokenizer_is_refused(
    lmflow_cli: Run, tiny_model: Path, prompts: Path, tmp_path: Path
) -> None:
    other = make_tiny_model(tmp_path / "other", vocab_size=300)
    make_tokenizer(300).save_pretrained(other)
    flags = ["--reward", "length", "--reference-model", other]
    refused = lmflow_cli("evaluate", "--model", tiny_model, "--dataset", prompts, *flags)
    assert refused.status == 2
    assert "reads ids of tokens otherwise than" in refused.stderr


def test_intervals() -> None:
    # One sample in each cluster: the usual interval of a mean, and Wilson's of a share.
    values = [1.0, 0.0, 1.0, 1.0, 0.0, 1.0]
    reach = _Z * statistics.stdev(values) / math.sqrt(6)
    mean = clustered_mean(values, [1] * 6)
    assert mean is not None
    assert (mean.low, mean.high) == pytest.approx((4 / 6 - reach, 4 / 6 + reach))
    share = clustered_share(values, [1] * 6)
    assert share is not None
    for bound in (share.low, share.high):
        assert bound is not None
        assert (bound - 4 / 6) ** 2 == pytest.approx(_Z**2 * bound * (1 - bound) / 6)
    # What repeats within its cluster tells nothing new.
    assert clustered_share([4 * v for v in values], [4] * 6) == share
    assert clustered_mean([4 * v for v in values], [4] * 6) == mean
    # Clusters without a sample count for nothing, one alone tells no interval of a mean, none no mean.
    assert clustered_mean([*values, 0], [1] * 6 + [0]) == mean
    assert clustered_mean([3.0], [2]) == Estimate(1.5, None, None)
    assert clustered_mean([0.0], [0]) is None
    assert clustered_share([0.0], [0]) is None
    none = clustered_share([0.0] * 10, [2] * 10)
    assert none is not None
    assert none.low == 0.0
    assert none.high == pytest.approx(_Z**2 / (10 + _Z**2))


def test_an_interval_of_95_percent_holds_the_truth_that_often() -> None:
    import random

    chance = random.Random(5)
    held = 0
    for _ in range(400):
        rates = [chance.choice((0.2, 0.8)) for _ in range(40)]
        hits = [float(sum(chance.random() < rate for _ in range(5))) for rate in rates]
        share = clustered_share(hits, [5] * 40)
        assert share is not None
        assert share.low is not None
        assert share.high is not None
        held += share.low <= 0.5 <= share.high
    assert 0.92 < held / 400 < 0.98
