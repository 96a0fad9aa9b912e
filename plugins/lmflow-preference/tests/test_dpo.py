"""The objective ``dpo`` against a plain loop over unpacked sequences, with every tuner, on one process and on two."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import logsigmoid

from lmflow_core.testing.references import FLAGS, TUNERS, finetuned

_STEPS, _BETA, _SMOOTHING = 3, 0.4, 0.1
_TEXTS = [(f"hello {n}", "the quick brown fox " * n + "jumps", "no " * n + "dog") for n in range(1, 5)]
_PAIRS = [{"instruction": prompt, "chosen": chosen, "rejected": rejected} for prompt, chosen, rejected in _TEXTS]
_LOSSES: dict[str, Callable[..., Any]] = {
    "sigmoid": lambda c, j, *_: -logsigmoid(_BETA * (c - j)),
    "cdpo": lambda c, j, *_: -(1 - _SMOOTHING) * logsigmoid(_BETA * (c - j)) - _SMOOTHING * logsigmoid(_BETA * (j - c)),
    "hinge": lambda c, j, *_: torch.clamp(1 - _BETA * (c - j), min=0),
    "ipo": lambda c, j, pc, pj, nc, nj: (c / nc - j / nj - 1 / (2 * _BETA)) ** 2,
    "robust": lambda c, j, *_: (
        (_SMOOTHING * logsigmoid(_BETA * (j - c)) - (1 - _SMOOTHING) * logsigmoid(_BETA * (c - j)))
        / (1 - 2 * _SMOOTHING)
    ),
    "simpo": lambda c, j, pc, pj, nc, nj: -logsigmoid(_BETA * (pc / nc - pj / nj) - 0.5),
    "orpo": lambda c, j, pc, pj, nc, nj: -pc / nc - _BETA * logsigmoid(_log_odds(pc / nc) - _log_odds(pj / nj)),
}


def _log_odds(logprob: Any) -> Any:
    return logprob - torch.log(1 - torch.exp(logprob))


def _flags(loss: str) -> list[object]:
    smoothed: list[object] = ["--dpo-label-smoothing", _SMOOTHING] if loss in ("cdpo", "robust") else []
    return ["--dpo-loss", "sigmoid" if loss == "cdpo" else loss, "--dpo-beta", _BETA, *smoothed]


def _wanted(loop: Any, loss: str) -> tuple[list[float], list[float]]:
    """Return the loss and the chosen answers' mean gain of each step."""
    known = [(loop.reference(prompt, chosen), loop.reference(prompt, rejected)) for prompt, chosen, rejected in _TEXTS]
    gains: list[float] = []

    def pairs() -> Any:
        total, gained = torch.zeros(()), 0.0
        for (prompt, chosen, rejected), (of_chosen, of_rejected) in zip(_TEXTS, known, strict=True):
            (good, length), (bad, other) = loop.answer(prompt, chosen), loop.answer(prompt, rejected)
            total = total + _LOSSES[loss](good - of_chosen, bad - of_rejected, good, bad, length, other)
            gained += float(good.detach() - of_chosen)
        gains.append(gained / len(_TEXTS))
        return total / len(_TEXTS)

    return [loop.step(number, pairs) for number in range(_STEPS)], gains


_CASES = [
    *(("full", 1, loss, []) for loss in _LOSSES),
    *((tuner, 1, "sigmoid", []) for tuner in ("lora", "lisa")),
    ("full", 1, "sigmoid", ["--pack-length", "160"]),
    ("full", 2, "sigmoid", []),
]


@pytest.mark.parametrize(("tuner", "processes", "loss", "more"), _CASES)
def test_every_step_is_that_of_a_plain_loop(
    tuner: str,
    processes: int,
    loss: str,
    more: list[str],
    rows: Callable[..., Path],
    loop: Any,
    tiny_model: Path,
    tmp_path: Path,
) -> None:
    if tuner != "full":
        pytest.importorskip(f"lmflow_{tuner}", reason=f"trained with {tuner} too")
    flags = ["--model", tiny_model, "--dataset", rows(_PAIRS), "--objective", "dpo", *_flags(loss), *TUNERS[tuner]]
    flags += [*FLAGS, *more, "--epochs", _STEPS, "--batch-size", len(_PAIRS) // processes]
    record = finetuned(tmp_path / "out", *flags, processes=processes)
    losses, gains = _wanted(loop(tiny_model, tuner), loss)
    assert record["loss_unit"] == "pairs"
    assert [value for _, value in record["losses"]] == pytest.approx(losses, rel=1e-5, abs=1e-5)
    curves = record["curves"]["training"]
    assert set(curves) == {
        *("rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins"),
        *("logps/chosen", "logps/rejected"),
    }
    if loss not in ("simpo", "orpo"):
        told = [value / _BETA for _, value in curves["rewards/chosen"]]
        assert told == pytest.approx(gains, rel=1e-4, abs=1e-4)


def test_another_model_can_be_the_reference_and_leaves_before_training(
    rows: Callable[..., Path], loop: Any, tiny_model: Path, tmp_path: Path
) -> None:
    from lmflow_core.testing.tiny import make_tiny_model

    other = make_tiny_model(tmp_path / "other", seed=1)
    flags = ["--model", tiny_model, "--dataset", rows(_PAIRS), "--objective", "dpo", *FLAGS, "--max-steps", 1]
    record = finetuned(tmp_path / "out", *flags, "--batch-size", 4, "--reference_model_name_or_path", other)
    mine, its = loop(tiny_model, "full"), loop(other, "full")
    gains = [[mine.reference(p, a) - its.reference(p, a) for a in answers] for p, *answers in _TEXTS]
    wanted = sum(float(-logsigmoid(torch.tensor(0.1 * (good - bad)))) for good, bad in gains) / len(gains)
    assert record["losses"][0][1] == pytest.approx(wanted, abs=1e-5)


def test_quantised_weights_are_their_own_reference(rows: Callable[..., Path], tiny_model: Path, tmp_path: Path) -> None:
    pytest.importorskip("lmflow_lora", reason="QLoRA is a tuner of it")
    pytest.importorskip("bitsandbytes", reason="weights are quantised by it")
    flags = ["--model", tiny_model, "--dataset", rows(_PAIRS), "--objective", "dpo", *FLAGS, "--epochs", 3]
    record = finetuned(tmp_path / "out", *flags, "--batch-size", 4, "--tuner", "qlora", "--lora-dropout", 0)
    losses = [value for _, value in record["losses"]]
    assert losses[0] == pytest.approx(0.693147, abs=1e-5)
    assert losses[2] < losses[1] < losses[0]
    assert (tmp_path / "out" / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize("variant", ["--lora-pissa", "--lora-dora"])
def test_an_adapter_that_is_not_nothing_at_first_has_the_model_before_training_as_reference(
    variant: str, rows: Callable[..., Path], tiny_model: Path, tmp_path: Path
) -> None:
    pytest.importorskip("lmflow_lora", reason="PiSSA and DoRA are variants of LoRA")
    flags = ["--model", tiny_model, "--dataset", rows(_PAIRS), "--objective", "dpo", *FLAGS, "--max-steps", 1]
    record = finetuned(tmp_path / "out", *flags, "--batch-size", 4, "--tuner", "lora", variant, "--lora-dropout", 0)
    assert record["losses"][0][1] == pytest.approx(0.693147, abs=1e-5)


_KILLED = """
import os, signal, sys, threading, time
from pathlib import Path
from lmflow_core.cli.main import run

def watch(folder):
    while not any(folder.glob("checkpoint-4/*.json")):
        time.sleep(0.002)
    os.kill(os.getpid(), signal.SIGKILL)

threading.Thread(target=watch, args=(Path(sys.argv[-1]) / "checkpoints",), daemon=True).start()
run(sys.argv[1:])
"""


def test_a_run_that_was_killed_goes_on_to_the_same_weights(
    rows: Callable[..., Path], tiny_model: Path, tmp_path: Path
) -> None:
    flags = [*("--model", tiny_model), *("--dataset", rows(_PAIRS)), *("--objective", "dpo"), *FLAGS]
    flags += ["--epochs", 10, "--batch-size", 2, "--save-steps", 2]
    finetuned(tmp_path / "whole", *flags)
    broken = tmp_path / "broken"
    command = [sys.executable, "-c", _KILLED, "finetune", *map(str, flags), "--output", str(broken)]
    assert subprocess.run(command, capture_output=True, timeout=120).returncode == -9
    assert not (broken / "run.json").exists()
    finetuned(broken, *flags, "--resume")
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "broken")]
    assert weights[0] == weights[1]


def test_the_best_and_the_worst_of_scored_answers_make_a_pair(
    rows: Callable[..., Path], loop: Any, tiny_model: Path, tmp_path: Path
) -> None:
    output = [{"text": " fox", "score": 0.1}, {"text": " jumps", "score": 0.9}, {"text": " no", "score": 0.5}]
    same = [{"text": " fox", "score": 0.5}, {"text": " no", "score": 0.5}]
    instances = [{"input": "hello", "output": output}, {"input": "hello", "output": same}]
    file = tmp_path / "scored.json"
    file.write_text(json.dumps({"type": "text_to_scored_textlist", "instances": instances}), encoding="utf-8")
    pytest.importorskip("lmflow_datasets", reason="rows are read by the plugin that knows their form")
    flags = ["--model", tiny_model, "--dataset", file, "--objective", "dpo", *FLAGS, "--max-steps", 1]
    told = {}
    for pairing in ("max_min", "max_max"):
        record = finetuned(tmp_path / pairing, *flags, "--sampling_paired_method", pairing)
        told[pairing] = [record["curves"]["training"][f"logps/{name}"][0][1] for name in ("chosen", "rejected")]
    assert told["max_min"][0] == told["max_max"][0]
    plain = loop(tiny_model, "full")
    ids = plain._tokenizer("hello", add_special_tokens=False).input_ids
    assert len({told["max_min"][0], told["max_min"][1], told["max_max"][1]}) == 3
    stop = plain._tokenizer.eos_token
    for value, text in zip([*told["max_min"], told["max_max"][1]], (" jumps", " fox", " no"), strict=True):
        answer = plain._tokenizer(text + stop, add_special_tokens=False).input_ids
        with torch.no_grad():
            assert value == pytest.approx(float(plain.logprob([*ids, *answer], len(ids))), abs=1e-4)


@pytest.mark.parametrize("kind", ["paired_text_to_text", "text_to_scored_textlist"])
def test_the_script_of_the_original_works_with_the_launcher_replaced(
    kind: str, tiny_model: Path, tmp_path: Path
) -> None:
    pytest.importorskip("lmflow_datasets", reason="rows are read by the plugin that knows their form")
    folder = tmp_path / "data"
    folder.mkdir()
    instances: list[dict[str, Any]] = {
        "paired_text_to_text": [
            {"prompt": p, "chosen": " " + c, "rejected": " " + r, "margin": 1.0} for p, c, r in _TEXTS
        ],
        "text_to_scored_textlist": [
            {"input": p, "output": [{"text": " " + c, "score": 2.0}, {"text": " " + r, "score": -1.0}]}
            for p, c, r in _TEXTS
        ],
    }[kind]
    data = {"type": kind, "instances": instances}
    (folder / "train.json").write_text(json.dumps(data), encoding="utf-8")
    line = f"""--model_name_or_path {tiny_model} --reference_model_name_or_path {tiny_model} --do_train True
        --dataset_path {folder} --eval_dataset_path {folder} --learning_rate 5e-7 --lr_scheduler_type cosine
        --warmup_steps 100 --optim paged_adamw_32bit --per_device_train_batch_size 1 --per_device_eval_batch_size 1
        --gradient_accumulation_steps 2 --gradient_checkpointing True --margin_scale 1.0 --max_prompt_length 1000
        --num_train_epochs 2 --logging_steps 2 --save_strategy steps --save_steps 5000 --evaluation_strategy steps
        --eval_steps 100 --loss_type sigmoid --run_name dpov2 --sampling_paired_method max_min --mask_prompt True
        --length_penalty 0"""
    record = finetuned(tmp_path / "out", "--objective", "dpo", *line.split())
    assert record["losses"][0] == [1, pytest.approx(0.693147, abs=1e-4)]
    assert record["options"]["warmup_steps"] == 100


def test_the_first_script_of_the_original_works_on_its_rows(
    rows: Callable[..., Path], tiny_model: Path, tmp_path: Path
) -> None:
    pytest.importorskip("lmflow_lora", reason="the script trains with LoRA")
    raw = [{"qid": n, "question": p, "response_j": c, "response_k": r} for n, (p, c, r) in enumerate(_TEXTS)]
    line = f"""--model_name_or_path {tiny_model} --dataset_path {rows(raw)} --run_name dpo --max_steps 2
        --learning_rate 1e-2 --use_lora 1 --lora_r 8 --sanity_check True --save_aggregated_lora 0 --logging_steps 1"""
    record = finetuned(tmp_path / "out", "--objective", "dpo", *line.split())
    assert record["losses"][0] == [1, pytest.approx(0.693147, abs=1e-4)]
    assert record["losses"][1][1] < record["losses"][0][1]


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--loss_type", "kl"], "--loss_type kl is not available: it fits the likelihood of a pair to its margin"),
        (["--loss_type=raft"], "--loss_type raft is not available: it learns chosen answers alone; --objective sft"),
        (["--length_penalty", "0.1"], "--length_penalty 0.1 is not available: no loss looks at lengths"),
        (["--loss_type", "mse"], "--dpo-loss: 'mse' is not one of sigmoid"),
    ],
)
def test_losses_of_the_original_that_are_not_there_say_why(
    flags: list[str],
    told: str,
    lmflow_cli: Callable[..., Any],
    rows: Callable[..., Path],
    tiny_model: Path,
    tmp_path: Path,
) -> None:
    data = rows([{"instruction": "hello", "chosen": "the fox", "rejected": "no"}])
    command = ["finetune", "--model", tiny_model, "--dataset", data, "--objective", "dpo", *flags]
    refused = lmflow_cli(*command, "--output", tmp_path / "x")
    assert refused.status == 2
    assert told in refused.stderr


@pytest.mark.parametrize("loss", ["sigmoid", "hinge", "ipo"])
@pytest.mark.parametrize("pairing", ["random", "max_min", "max_max", "max_random"])
def test_losses_and_pairings_of_the_original_mean_the_same_here(loss: str, pairing: str) -> None:
    from lmflow_core.cli.flags import FlagParser
    from lmflow_core.config.schema import FINETUNE
    from lmflow_core.plugins.registry import Catalogue

    given = ["--loss_type", loss, "--sampling_paired_method", pairing, "--objective", "dpo"]
    values = FlagParser(FINETUNE, Catalogue.discover()).parse(given).values
    assert values == {"dpo_loss": loss, "dpo_pairing": pairing, "objective": "dpo"}
