"""What benchmarks share that let several programs train the same: each in a process of its own, measured alike."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

THREADS = 2


class Clock:
    """Time since it was made, on the wall and of this process's processors."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def read(self) -> dict[str, float]:
        """Return ``seconds`` and ``cpu_seconds``."""
        return {"seconds": time.perf_counter() - self._wall, "cpu_seconds": time.process_time() - self._cpu}


def peak_memory_bytes() -> int:
    """Return the most memory this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def run_worker(script: str, name: str, options: Mapping[str, object], threads: int = THREADS) -> dict[str, Any]:
    """Run a contender in a process of its own, and return what it printed last, as JSON.

    What was computed for one contender is not there for the next.

    Args:
        script: of the benchmark, which takes ``--worker NAME``.
        name: of the contender.
        options: further options of the script and their values.
        threads: of the process.
    """
    print(f"running {name}", file=sys.stderr, flush=True)
    settings = {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    command = [sys.executable, script, "--worker", name]
    for option, value in options.items():
        command += [option, str(value)]
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, **settings, "LMFLOW_CACHE": cache, "HF_DATASETS_CACHE": cache}
        finished = subprocess.run(command, capture_output=True, text=True, env=environment)
    if finished.returncode:
        raise SystemExit(f"{name}\n{finished.stdout}{finished.stderr}")
    result: dict[str, Any] = json.loads(finished.stdout.strip().splitlines()[-1])
    return {"name": name, **result}


def train_in_order() -> None:
    """Let our trainer take examples in the order of the file; TRL has a setting for that."""
    from torch.utils.data import SequentialSampler

    from lmflow_transformers.training.trainer import LossTrainer

    LossTrainer._get_train_sampler = lambda self, dataset=None: SequentialSampler(self.train_dataset)  # type: ignore[method-assign]


def losses_of(folder: Path) -> list[float]:
    """Return the losses that a run of ours left in its record."""
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return [loss for _, loss in record["losses"]]


def common_trl_options(batch: int, lr: float, checkpointing: bool) -> dict[str, Any]:
    """Return what TRL is told in all benchmarks: one epoch in float32 at a constant rate, with every loss logged."""
    return {
        "output_dir": tempfile.mkdtemp(),
        "per_device_train_batch_size": batch,
        "learning_rate": lr,
        "lr_scheduler_type": "constant",
        "num_train_epochs": 1,
        "gradient_checkpointing": checkpointing,
        "bf16": False,
        "use_cpu": True,
        "report_to": "none",
        "save_strategy": "no",
        "logging_steps": 1,
        "dataloader_pin_memory": False,
    }


def logged_losses(trainer: Any) -> list[float]:
    """Return the loss of each step of a trainer of transformers."""
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
