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
from typing import Any

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
        import torch

        logits = self.network(input_ids=torch.tensor([list(ids)])).logits[0, :-1]
        chosen = logits.log_softmax(-1).gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
        return chosen[first - 1 :].sum()
