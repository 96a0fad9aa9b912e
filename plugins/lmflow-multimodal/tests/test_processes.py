"""Two processes, of which one often has images and the other none, learn what one process learns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lmflow_core.api import IGNORE, EncodedExample, EncodedSequence, ImagePart, Segment, TrainingSettings
from lmflow_core.data.encoding import Encoder
from lmflow_core.testing.jobs import make_job
from lmflow_transformers.api import collate, sequence_logprobs

_ENGINES: dict[str, tuple[str, ...]] = {
    "torchrun": ("--engine", "torchrun"),
    "fsdp": ("--engine", "fsdp"),
    "zero2": ("--engine", "deepspeed", "--zero-stage", "2"),
    "zero3": ("--engine", "deepspeed", "--zero-stage", "3"),
}


def test_a_sequence_beside_a_batch_counts_nowhere(
    seeing_model: Callable[[str], Path], photos: list[str], tmp_path: Path
) -> None:
    job = make_job(seeing_model("idefics3"), tmp_path / "c", TrainingSettings(lr=1e-3), [])
    model = job.model
    encoder = Encoder(model.tokenizer, None, media=model.media)
    shown, text = encoder.encode_segments(
        [[Segment("", image=ImagePart(photos[0])), Segment("What?")], [Segment("What?"), Segment("the capital", True)]]
    )
    beside = EncodedSequence(shown.input_ids, [IGNORE] * len(shown.input_ids), shown.media)
    examples = [EncodedExample((text,)), EncodedExample((text, text))]
    alone, together = (collate(examples, media_inputs=model.media_inputs, beside=each) for each in (None, beside))
    assert (together.tokens, together.ends.tolist()) == (alone.tokens, alone.ends.tolist())
    with torch.no_grad():
        expected, found = (sequence_logprobs(model.base.eval(), batch) for batch in (alone, together))
    assert torch.allclose(found, expected, atol=1e-5)
    connector = next(p for name, p in model.base.named_parameters() if model.part_of(name) == "projector")
    for batch, touched in ((alone, False), (together, True)):
        model.base.zero_grad()
        sequence_logprobs(model.base, batch).sum().backward()
        assert (connector.grad is not None) is touched
    assert not connector.grad.any()


@pytest.mark.slow
@pytest.mark.usefixtures("other_plugins")
@pytest.mark.parametrize("engine", _ENGINES)
def test_two_processes_learn_what_one_does(
    engine: str, seeing_model: Callable[[str], Path], photos: list[str], tmp_path: Path
) -> None:
    if engine.startswith("zero"):
        pytest.importorskip("deepspeed")
    rows = []
    for number in range(8):
        shown = [{"type": "image", "image": photos[number % 3]}] if number % 4 else []
        asked = {"role": "user", "content": [*shown, {"type": "text", "text": f"What is {number}?"}]}
        rows.append({"messages": [asked, {"role": "assistant", "content": "over the lazy dog"}]})
    data = Path(photos[0]).with_name("some.jsonl")
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    flags = ("--model", seeing_model("idefics3"), "--dataset", data, "--template", "chatml", "--device", "cpu")
    steps = ("--lr", 0.01, "--epochs", 2, "--logging-steps", 1)
    one = _run(tmp_path / "one", *flags, *steps, "--batch-size", 2)
    two = _run(tmp_path / "two", *flags, *steps, "--batch-size", 1, "--nproc", 2, *_ENGINES[engine])
    assert len(one["losses"]) == 8
    assert [loss for _, loss in two["losses"]] == pytest.approx([loss for _, loss in one["losses"]], abs=1e-4)
    weights, others = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert weights.keys() == others.keys()
    assert max(float((weights[name] - others[name]).abs().max()) for name in weights) <= 1e-4


def _run(output: Path, *flags: object) -> dict[str, Any]:
    command = [sys.executable, "-m", "lmflow_core", "finetune", "--output", str(output), *map(str, flags)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    finished = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=400)
    assert finished.returncode == 0, finished.stderr
    record: dict[str, Any] = json.loads((output / "run.json").read_text(encoding="utf-8"))
    return record
