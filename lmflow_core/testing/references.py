"""Plain loops that training is compared with: nothing packed, one sequence in a pass, the optimizer of PyTorch.

They share no code with what they are compared with, but for which layers LISA samples.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

Lesson = TypeVar("Lesson")
_EPSILON = 1e-3
TUNERS: dict[str, list[str]] = {
    "full": ["--tuner", "full"],
    "lora": ["--tuner", "lora", "--lora-dropout", "0"],
    "lisa": ["--tuner", "lisa", "--lisa-activated-layers", "1", "--lisa-interval-steps", "1"],
}
# A large epsilon keeps AdamW's first steps from turning rounding errors of tiny gradients into whole steps.
FLAGS = [
    *("--lr", "1e-2", "--lr-scheduler-type", "constant", "--warmup-ratio", "0", "--adam-epsilon", str(_EPSILON)),
    *("--logging-steps", "1", "--max-grad-norm", "0", "--seed", "42"),
]


def finetuned(folder: Path, *flags: object, processes: int = 1) -> dict[str, Any]:
    """Run ``lmflow finetune`` with some flags on so many processes, and return what its ``run.json`` says.

    Args:
        folder: of the result.
        flags: of the command, without ``--output``.
        processes: how many; one is this process.
    """
    from lmflow_core.cli.main import run

    arguments = ["finetune", *map(str, flags), "--output", str(folder)]
    if processes == 1:
        assert run(arguments) == 0
    else:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        command = [*launcher, "-m", "lmflow_core", *arguments]
        finished = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
        assert finished.returncode == 0, finished.stderr
    record: dict[str, Any] = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return record


def kept_samples(folder: Path) -> list[list[dict[str, Any]]]:
    """Return the answers that a run sampled while it trained, round by round, as it kept them."""
    files = sorted((folder / "checkpoints" / "samples").glob("*.jsonl"))
    return [[json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] for file in files]


def dealt(lessons: Sequence[Lesson], processes: int, steps: int) -> list[list[Lesson]]:
    """Deal the lessons of a round to its steps: of two processes every second is the other's, each deals its own."""
    shares = [lessons[rank::processes] for rank in range(processes)]
    cuts = [[len(share) * n // steps for n in range(steps + 1)] for share in shares]
    return [
        [one for share, cut in zip(shares, cuts, strict=True) for one in share[cut[n] : cut[n + 1]]]
        for n in range(steps)
    ]


class PlainLoop:
    """A network that is trained step by step.

    Args:
        folder: of a model.
        tuner: one of :data:`TUNERS`.
    """

    def __init__(self, folder: Path, tuner: str) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        self.network: Any = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
        self._tuner = tuner
        if tuner == "lora":
            from peft import LoraConfig, get_peft_model

            torch.manual_seed(42)
            config = LoraConfig(
                task_type="CAUSAL_LM", r=8, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear"
            )
            self.network = get_peft_model(self.network, config)
        trained = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        self._optimizer = torch.optim.AdamW(trained, lr=1e-2, weight_decay=0.0, eps=_EPSILON)
        self.network.eval()

    def step(self, number: int, loss: Callable[[], Any]) -> float:
        """Take a step on a loss, and return it."""
        with self._active(number):
            self._optimizer.zero_grad(set_to_none=True)
            value = loss()
            value.backward()
            self._optimizer.step()
        return float(value.detach())

    @contextmanager
    def _active(self, number: int) -> Iterator[None]:
        """With LISA, let only the layer of a step train, and forget the state of the others."""
        if self._tuner == "lisa":
            from lmflow_lisa.layers import sample_layers

            layers = self.network.model.layers
            (active,) = sample_layers(42, number, 1, len(layers))
            for place, layer in enumerate(layers):
                for parameter in layer.parameters():
                    parameter.requires_grad_(place == active)
                    if place != active:
                        self._optimizer.state.pop(parameter, None)
        yield

    def logprob(self, ids: Sequence[int], first: int) -> Any:
        """Return the log-probability of the tokens of a sequence from a place on, together."""
        return self.logprobs(ids, first).sum()

    def logprobs(self, ids: Sequence[int], first: int) -> Any:
        """Return the log-probability of each token of a sequence from a place on."""
        import torch

        logits = self.network(input_ids=torch.tensor([list(ids)])).logits[0, :-1]
        return logits.log_softmax(-1).gather(1, torch.tensor(ids[1:])[:, None])[first - 1 :, 0]
