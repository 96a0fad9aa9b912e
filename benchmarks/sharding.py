"""Bytes of weights and of optimizer state in each process, by the stage of ZeRO.

    python benchmarks/sharding.py
    python benchmarks/sharding.py --processes 4 --width 768

A random Llama trains for two steps on processes that share this machine's processor; tensors are counted, not pages.
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

_STAGES = ("0", "1", "2", "3")


def _bytes(tensors: Iterable[Any]) -> int:
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors if torch.is_tensor(t)}
    return sum(storages.values())


def _counted(trainer: Any) -> dict[str, int]:
    """Return the bytes of this process: weights, and what the optimizer keeps, its own copies of weights included."""
    weights = [p.ds_tensor if hasattr(p, "ds_tensor") and not p.numel() else p for p in trainer.model.parameters()]
    seen = {weight.untyped_storage().data_ptr() for weight in weights}
    state = trainer._raw_optimizer.state
    kept = [*state, *(value for values in state.values() for value in values.values())]
    own = [t for t in kept if torch.is_tensor(t) and t.untyped_storage().data_ptr() not in seen]
    return {"weights": _bytes(weights), "optimizer": _bytes(own)}


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
    return ["--model", str(model), "--dataset", str(folder / "data.json"), "--max-steps", "2", "--batch-size", "1"]


def measured(processes: int, width: int) -> dict[str, dict[str, int]]:
    """Return the bytes of the process that holds most, by stage."""
    found = {}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        flags = [*_make(folder, width), "--engine", "deepspeed"]
        for stage in _STAGES:
            output = folder / f"zero{stage}"
            command = [*launcher, __file__, "--train", str(output), *flags, "--zero-stage", stage]
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            finished = subprocess.run(command, capture_output=True, text=True, env=environment)
            if finished.returncode:
                sys.exit(finished.stderr)
            counts = [json.loads(path.read_text("utf-8")) for path in folder.glob(f"zero{stage}.rank*.json")]
            assert len(counts) == processes
            found[stage] = {key: max(count[key] for count in counts) for key in counts[0]}
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
    rows = [(s, f"{found[s]['weights'] / 1e6:.1f} MB", f"{found[s]['optimizer'] / 1e6:.1f} MB") for s in _STAGES]
    print(table(("STAGE", "WEIGHTS", "OPTIMIZER"), rows))


if __name__ == "__main__":
    main()
