"""Each objective of alignment with each tuner, on one process and on two, which learn the same; or a refusal."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lmflow_core.testing.references import finetuned, kept_samples

_PAIRS = [{"instruction": f"say {n}", "chosen": "yes " * (n % 5 + 1), "rejected": "no no " + "x" * n} for n in range(8)]
_VERDICTS = [{"prompt": f"say {n}", "completion": "yes " * (n % 5 + 1), "label": n % 2 == 0} for n in range(8)]
_PROMPTS = [{"prompt": f"say {n}"} for n in range(8)]
# A round of RAFT is a step here: what it learns is dealt to no other step by another number of processes.
_RAFT = ["--reward", "regex", "--regex-pattern", ".*[aeiou].*", "--raft-samples", 6, "--raft-round-prompts", 4]
_OBJECTIVES: dict[str, tuple[list[dict[str, str]], list[Any]]] = {
    "dpo": (_PAIRS, []),
    "kto": (_VERDICTS, []),
    "reward": (_PAIRS, []),
    "raft": (_PROMPTS, [*_RAFT, "--raft-max-new-tokens", 4]),
}
_TUNERS: dict[str, list[Any]] = {
    "full": [],
    "lora": ["--lora-dropout", 0],
    "lisa": ["--lisa-activated-layers", 1, "--lisa-interval-steps", 2],
    "qlora": ["--lora-dropout", 0],
}
_CELLS = [(objective, tuner) for objective in _OBJECTIVES for tuner in _TUNERS]
_STEPS = 4


@pytest.fixture(scope="module")
def cell(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], list[Any]]:
    """Return a function that gives the flags of an objective with a tuner."""
    folder = tmp_path_factory.mktemp("rows")

    def flags(objective: str, tuner: str) -> list[Any]:
        if tuner == "qlora":
            pytest.importorskip("bitsandbytes", reason="quantises the weights")
        rows, own = _OBJECTIVES[objective]
        data = folder / f"{objective}.jsonl"
        data.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        chosen = ["--model", tiny_model, "--dataset", data, "--objective", objective, "--tuner", tuner]
        return [*chosen, *own, *_TUNERS[tuner], "--lr", "1e-2", "--epochs", 2, "--logging-steps", 1]

    return flags


@pytest.fixture(scope="module")
def alone(cell: Callable[..., list[Any]], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """Return a function that gives the folder of what one process made of a cell."""
    made: dict[tuple[str, str], Path] = {}

    def result(objective: str, tuner: str) -> Path:
        if (objective, tuner) not in made:
            folder = tmp_path_factory.mktemp("alone") / f"{objective}-{tuner}"
            finetuned(folder, *cell(objective, tuner), "--batch-size", 4, "--engine", "local")
            made[objective, tuner] = folder
        return made[objective, tuner]

    return result


def _weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    (file,) = folder.glob("*model.safetensors")
    return load_file(file)


def _losses(folder: Path) -> list[float]:
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return [loss for _, loss in record["losses"]]


@pytest.mark.parametrize(("objective", "tuner"), _CELLS)
def test_one_process(objective: str, tuner: str, alone: Callable[[str, str], Path], tiny_model: Path) -> None:
    folder = alone(objective, tuner)
    losses = _losses(folder)
    assert len(losses) == _STEPS
    assert all(map(math.isfinite, losses))
    weights = _weights(folder)
    if tuner in ("lora", "qlora"):  # what is multiplied begins with zeros
        trained = {name: value for name, value in weights.items() if "lora_B" in name}
        moved = [name for name, value in trained.items() if value.any()]
    else:
        begun = _weights(tiny_model)
        trained = {name: value for name, value in weights.items() if name in begun}
        moved = [name for name, value in trained.items() if not torch.equal(value, begun[name])]
    if tuner == "lisa":  # in four steps not each layer had its turn
        assert {name.split(".")[2] for name in moved if ".layers." in name} != set()
        trained = {name: value for name, value in trained.items() if ".layers." not in name}
        moved = [name for name in moved if ".layers." not in name]
    assert moved == [*trained], "some weights did not train"
    if objective == "dpo":
        assert losses[0] == pytest.approx(0.693147, abs=1e-5), "it does not begin at its reference"
    if objective == "kto":
        assert losses[0] == pytest.approx(0.5, abs=1e-5), "it does not begin at its reference"
    if objective in ("dpo", "reward"):  # what RAFT learns, and what KTO measures it by, is new in each step
        assert losses[-1] < losses[0]


@pytest.mark.slow
@pytest.mark.parametrize(("objective", "tuner"), _CELLS)
def test_two_processes_learn_what_one_learns(
    objective: str, tuner: str, cell: Callable[..., list[Any]], alone: Callable[[str, str], Path], tmp_path: Path
) -> None:
    one, two = alone(objective, tuner), tmp_path / "two"
    record = finetuned(two, *cell(objective, tuner), "--batch-size", 2, "--engine", "torchrun", processes=2)
    assert record["tokens"] == json.loads((one / "run.json").read_text(encoding="utf-8"))["tokens"]
    assert _losses(two) == pytest.approx(_losses(one), abs=1e-4)
    weights, others = _weights(one), _weights(two)
    assert weights.keys() == others.keys()
    assert max(float((weights[name] - others[name]).abs().max()) for name in weights) <= 1e-4
    if objective == "raft":
        assert _sampled(one) == _sampled(two)


def _sampled(folder: Path) -> list[Any]:
    rounds = kept_samples(folder)
    assert len(rounds) == _STEPS
    return [sorted((r["prompt_ids"], r["answer_ids"], r["reward"], r["learned"]) for r in each) for each in rounds]


@pytest.mark.parametrize(
    ("objective", "flags", "told"),
    [
        ("dpo", ["--reward", "length"], "--reward: --objective dpo scores no answers; leave it out"),
        ("reward", ["--reward", "length"], "--reward: --objective reward scores no answers; leave it out"),
        ("dpo", ["--engine", "deepspeed", "--zero-stage", "3", "--tuner", "qlora"], "of the form nf4"),
        ("kto", ["--engine", "deepspeed", "--zero-stage", "3", "--tuner", "qlora"], "of the form nf4"),
        ("reward", ["--engine", "deepspeed", "--zero-stage", "3", "--tuner", "qlora"], "of the form nf4"),
        ("raft", ["--engine", "deepspeed", "--zero-stage", "3", "--tuner", "qlora"], "of the form nf4"),
    ],
)
def test_what_does_not_go_together_is_refused_by_name(
    objective: str,
    flags: list[str],
    told: str,
    cell: Callable[..., list[Any]],
    lmflow_cli: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    from lmflow_transformers.models import CausalModel

    if "deepspeed" in flags:
        pytest.importorskip("deepspeed", reason="spreads the weights")
    monkeypatch.setattr(CausalModel, "load", lambda self: pytest.fail("weights are read"))
    refused = lmflow_cli("finetune", *cell(objective, "full"), *flags, "--output", tmp_path / "out")
    assert refused.status == 2
    assert told in refused.stderr
    assert not (tmp_path / "out").exists()
