"""Bytes of weights, of the optimizer's copies of them and of its state in each process, by engine and tuner.

    python benchmarks/sharding.py
    python benchmarks/sharding.py --processes 4 --width 768

A random Llama trains for a few steps on processes that share this machine's processor; tensors are counted, not pages.
LISA trains another of the four layers in each step: what it does not free would add up.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from lmflow_core.report.console import table
from lmflow_core.testing.tiny import make_tiny_model

ENGINES = {
    "torchrun": ("--engine", "torchrun"),
    "fsdp": ("--engine", "fsdp"),
    **{f"ZeRO {stage}": ("--engine", "deepspeed", "--zero-stage", stage) for stage in "0123"},
}
TUNERS = {
    "full": ("--tuner", "full"),
    "lisa": ("--tuner", "lisa", "--lisa-activated-layers", "1", "--lisa-interval-steps", "1"),
}
# Where DeepSpeed keeps the weights in float32 that it updates, in stages 1 and 2, and in stage 3.
_COPIES = ("single_partition_of_fp32_groups", "fp32_partitioned_groups_flat")


def _bytes(tensors: Iterable[Any], but: Iterable[Any] = ()) -> int:
    """Return the bytes of what some tensors are stored in, but of what others are."""
    known = {tensor.untyped_storage().data_ptr() for tensor in but}
    parts = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors if torch.is_tensor(t)}
    return sum(size for place, size in parts.items() if place not in known)


def _counted(trainer: Any) -> dict[str, int]:
    """Return the bytes of this process."""
    from lmflow_transformers.sharding import own_part

    weights = [own_part(parameter) for parameter in trainer.model.parameters()]
    spreading = getattr(trainer.deepspeed, "optimizer", None)
    copies = [piece for name in _COPIES for piece in getattr(spreading, name, ())]
    values = [value for values in trainer.raw_optimizer.state.values() for value in values.values()]
    state = [own_part(value) for value in values if torch.is_tensor(value)]
    return {"weights": _bytes(weights), "copies": _bytes(copies, weights), "state": _bytes(state)}


def train(output: Path, flags: list[str]) -> None:
    """Train as the command line does, and leave what was counted at the end beside the result."""
    from lmflow_core.cli.main import main as lmflow
    from lmflow_transformers.training import run

    report = run._report

    def counting(job: Any, trainer: Any, *others: Any) -> Any:
        Path(f"{output}.rank{job.world.rank}.json").write_text(json.dumps(_counted(trainer)), encoding="utf-8")
        return report(job, trainer, *others)

    run._report = counting
    sys.argv = ["lmflow", "finetune", "--output", str(output), *flags]
    lmflow()


def _make(folder: Path, width: int) -> list[str]:
    """Make a model and data; return the flags that name them."""
    from transformers import AutoConfig, AutoModelForCausalLM

    model = make_tiny_model(folder / "model")
    config = AutoConfig.from_pretrained(model)
    config.update({"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": 4, "head_dim": 64})
    config.update({"num_attention_heads": width // 64, "num_key_value_heads": width // 64})
    AutoModelForCausalLM.from_config(config).save_pretrained(model)
    rows = [{"text": "a few words " * 5} for _ in range(16)]
    (folder / "data.json").write_text(json.dumps(rows), encoding="utf-8")
    return ["--model", str(model), "--dataset", str(folder / "data.json"), "--max-steps", "4", "--batch-size", "1"]


def measured(processes: int, width: int) -> dict[str, dict[str, dict[str, int]]]:
    """Return the bytes of the process that holds most, by engine and tuner."""
    found: dict[str, dict[str, dict[str, int]]] = {}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        flags = _make(folder, width)
        for engine, chosen in ENGINES.items():
            for tuner, trained in TUNERS.items():
                output = folder / f"{engine} {tuner}"
                command = [*launcher, __file__, "--train", str(output), *flags, *chosen, *trained]
                environment = {**os.environ, "OMP_NUM_THREADS": "1"}
                finished = subprocess.run(command, capture_output=True, text=True, env=environment)
                if finished.returncode:
                    sys.exit(finished.stderr)
                counts = [json.loads(path.read_text("utf-8")) for path in folder.glob(f"{output.name}.rank*.json")]
                assert len(counts) == processes
                most = {key: max(count[key] for count in counts) for key in counts[0]}
                found.setdefault(engine, {})[tuner] = most
    return found


def main() -> None:
    """Measure and print."""
    if sys.argv[1:2] == ["--train"]:
        train(Path(sys.argv[2]), sys.argv[3:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--width", type=int, default=512, help="hidden size of the model, a multiple of 64")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    arguments = parser.parse_args()
    found = measured(arguments.processes, arguments.width)
    if arguments.json:
        print(json.dumps(found, indent=2))
        return
    rows = [
        (engine, tuner, *(f"{count[key] / 1e6:.1f} MB" for key in ("weights", "copies", "state")))
        for engine, tuners in found.items()
        for tuner, count in tuners.items()
    ]
    print(table(("ENGINE", "TUNER", "WEIGHTS", "COPIES", "STATE"), rows))


if __name__ == "__main__":
    main()
