"""The pairwise objective against a plain loop over unpacked sequences, with every tuner, on one process and on two."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lmflow_contrib_slic.objective import SlicLoss
from lmflow_contrib_slic.plugin import SlicOptions
from lmflow_core.api import IGNORE, EncodedExample, EncodedSequence
from lmflow_core.testing.references import FLAGS, TUNERS, PlainLoop, finetuned
from lmflow_transformers.api import collate

_STEPS, _PAIRS = 4, 6
_PREFIX, _ANSWERED = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n", "{}<|im_end|>\n"


def _texts(number: int) -> tuple[str, str, str]:
    return f"hello {number}", "the quick brown fox " * (number + 1), "no " * (number + 2)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("lmflow_datasets", reason="rows are read by the plugin that knows their form")
    pytest.importorskip("lmflow_lisa", reason="trained with LISA too")
    pytest.importorskip("lmflow_lora", reason="trained with LoRA too")
    rows = []
    for number in range(_PAIRS):
        prompt, chosen, rejected = _texts(number)
        answers = {name: [{"role": "assistant", "content": text}] for name, text in
                   (("chosen", chosen.strip()), ("rejected", rejected.strip()))}  # fmt: skip
        rows.append({"prompt": [{"role": "user", "content": prompt}], **answers})
    file = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return file


def _reference(folder: Path, tuner: str) -> tuple[list[float], list[float]]:
    """Return the loss and the share of pairs in order at each step of a plain loop."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    loop = PlainLoop(folder, tuner)
    accuracies: list[float] = []

    def logprob(prompt: str, answer: str) -> Any:
        before = tokenizer(_PREFIX.format(prompt), add_special_tokens=False).input_ids
        # The answer and its stop; what follows the stop in the template is not learned.
        learned = tokenizer(_ANSWERED.format(answer.strip()).rstrip("\n"), add_special_tokens=False).input_ids
        return loop.logprob([*before, *learned], len(before))

    def loss() -> Any:
        total, right = torch.zeros(()), 0
        for number in range(_PAIRS):
            prompt, *answers = _texts(number)
            chosen, rejected = (logprob(prompt, answer) for answer in answers)
            total = total + torch.clamp(2.0 - chosen + rejected, min=0) - 0.1 * chosen
            right += int(chosen > rejected)
        accuracies.append(right / _PAIRS)
        return total / _PAIRS

    return [loop.step(number, loss) for number in range(_STEPS)], accuracies


_PACKED = ["--pack-length", "160"]
_CASES = [*((tuner, processes, []) for tuner in TUNERS for processes in (1, 2)), ("full", 1, _PACKED)]


@pytest.mark.parametrize(("tuner", "processes", "pack"), _CASES)
def test_every_step_is_that_of_a_plain_loop(
    tuner: str, processes: int, pack: list[str], data: Path, tiny_model: Path, tmp_path: Path
) -> None:
    flags = ["--model", tiny_model, "--dataset", data, "--objective", "slic", "--slic-margin", "2", *TUNERS[tuner]]
    flags += [*FLAGS, *pack, "--epochs", _STEPS, "--batch-size", _PAIRS // processes]
    record = finetuned(tmp_path / "out", *flags, processes=processes)
    losses, accuracies = _reference(tiny_model, tuner)
    assert record["loss_unit"] == "pairs"
    assert [loss for _, loss in record["losses"]] == pytest.approx(losses, rel=1e-6, abs=1e-5)
    assert [value for _, value in record["curves"]["training"]["accuracy"]] == pytest.approx(accuracies)
    assert set(record["curves"]["training"]) == {"accuracy", "margin"}


def test_the_loss_is_the_papers(tiny_model: Path) -> None:
    network = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    pair = EncodedExample((EncodedSequence([5, 6, 7], [IGNORE, 6, 7]), EncodedSequence([5, 9], [IGNORE, 9])))
    batch = collate([pair, pair], isolated=False)
    loss = SlicLoss(SlicOptions(slic_margin=3.0, slic_regularization=0.5))
    with torch.no_grad():
        output = loss(network, batch)
        chosen, rejected = (
            network(torch.tensor([ids])).logits[0, :-1].log_softmax(-1).gather(1, torch.tensor(ids[1:])[:, None]).sum()
            for ids in ([5, 6, 7], [5, 9])
        )
    expected = 2 * (torch.clamp(3.0 - chosen + rejected, min=0) - 0.5 * chosen)
    torch.testing.assert_close(output.total, expected, atol=1e-5, rtol=1e-5)
    assert loss.units(batch) == 2


def test_rows_that_are_no_pairs_are_refused(
    lmflow_cli: Callable[..., Any], tiny_model: Path, write_rows: Callable[..., Path], tmp_path: Path
) -> None:
    pytest.importorskip("lmflow_datasets", reason="rows are read by the plugin that knows their form")
    rows = write_rows([{"text": "hello"}])
    told = lmflow_cli(
        "finetune", "--model", tiny_model, "--dataset", rows, "--objective", "slic", "--output", tmp_path / "x"
    )
    assert told.status == 2
    assert "row 1: a text example, but the objective learns from preference" in told.stderr
