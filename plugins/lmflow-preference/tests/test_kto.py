"""The objective ``kto`` against a plain loop over unpacked sequences, on one process and on two."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lmflow_core.testing.references import FLAGS, TUNERS, finetuned

_STEPS, _BETA = 3, 0.4
_TEXTS = [
    ("hello", "the quick brown fox jumps", True),
    ("hello", "no", False),
    ("what is it?", "the dog does not mind", True),
    ("is it?", "world world world", False),
]
_ROWS = [
    {"messages": [{"role": "user", "content": p}, {"role": "assistant", "content": a}], "label": good}
    for p, a, good in _TEXTS
]
# Of each the next answer to another prompt.
_OTHERS = [2, 2, 3, 0]


def _wanted(loop: Any) -> tuple[list[float], list[float]]:
    """Return the loss and the divergence of each step."""
    mismatched = [(_TEXTS[n][0], _TEXTS[other][1]) for n, other in enumerate(_OTHERS)]
    known = [loop.reference(prompt, answer) for prompt, answer, _ in _TEXTS]
    others = [loop.reference(*pair) for pair in mismatched]
    divergences: list[float] = []

    def answers() -> Any:
        now = [loop.reference(*pair) for pair in mismatched]
        kl = max(0.0, sum(n - before for n, before in zip(now, others, strict=True)) / len(now))
        divergences.append(kl)
        total = torch.zeros(())
        for (prompt, answer, good), reference in zip(_TEXTS, known, strict=True):
            gain = loop.answer(prompt, answer)[0] - reference
            weight, sign = (2.0, 1) if good else (0.5, -1)
            total = total + weight * (1 - torch.sigmoid(_BETA * sign * (gain - kl)))
        return total / len(_TEXTS)

    return [loop.step(number, answers) for number in range(_STEPS)], divergences


@pytest.mark.parametrize(("tuner", "processes"), [("full", 1), ("lora", 1), ("lisa", 1), ("full", 2)])
def test_every_step_is_that_of_a_plain_loop(
    tuner: str, processes: int, rows: Callable[..., Path], loop: Any, tiny_model: Path, tmp_path: Path
) -> None:
    if tuner != "full":
        pytest.importorskip(f"lmflow_{tuner}", reason=f"trained with {tuner} too")
    flags = ["--model", tiny_model, "--dataset", rows(_ROWS), "--objective", "kto", "--kto-beta", _BETA]
    flags += ["--kto-desirable-weight", 2, "--kto-undesirable-weight", 0.5, *TUNERS[tuner], *FLAGS]
    flags += ["--epochs", _STEPS, "--batch-size", len(_ROWS) // processes]
    record = finetuned(tmp_path / "out", *flags, processes=processes)
    losses, divergences = _wanted(loop(tiny_model, tuner))
    curves = record["curves"]["training"]
    assert record["loss_unit"] == "answers"
    assert any(divergences)
    assert [value for _, value in curves["kl"]] == pytest.approx(divergences, rel=1e-4, abs=1e-4)
    assert [value for _, value in record["losses"]] == pytest.approx(losses, rel=1e-5, abs=1e-5)
    assert {"rewards/chosen", "rewards/rejected", "logps/chosen", "logps/rejected"} <= set(curves)
