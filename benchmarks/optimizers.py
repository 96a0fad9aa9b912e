"""What two optimizers learn side by side: loss, speed and memory of the same steps on the same rows.

    python benchmarks/optimizers.py --data ROWS.json --optimizers adamw muon

Trains SmolLM2-135M-Instruct (or ``--model``) with each, at its own learning rate or that of ``--lr``, and measures the
loss (NLL per labelled token) of each result on the rows it was trained on and on rows it was not.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

_LENGTH = ["--max-length", "512", "--length-policy", "truncate"]


def main() -> None:
    """Train with both optimizers, measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="alpaca rows: a JSON list")
    parser.add_argument("--optimizers", nargs=2, default=["adamw", "muon"], metavar="NAME")
    parser.add_argument("--lr", nargs=2, metavar="RATE", help="their learning rates; their own when left out")
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--tuner", default="full")
    parser.add_argument("--rows", type=int, default=300, help="rows to train on; the next 100 are for validation")
    parser.add_argument("--steps", type=int, help="optimizer steps; one epoch when left out")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    rows = json.loads(arguments.data.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        trained, validation = folder / "trained.json", folder / "validation.json"
        trained.write_text(json.dumps(rows[: arguments.rows]))
        validation.write_text(json.dumps(rows[arguments.rows : arguments.rows + 100]))
        results = []
        for number, optimizer in enumerate(arguments.optimizers):
            flags = ["--model", arguments.model, "--tuner", arguments.tuner, "--optimizer", optimizer]
            flags += ["--lr", arguments.lr[number]] if arguments.lr else []
            flags += ["--max-steps", str(arguments.steps)] if arguments.steps else []
            results.append(_measured(optimizer, flags, trained, validation, folder / "out"))
    print(json.dumps(results, indent=2) if arguments.json else _table(results))


def _measured(name: str, flags: list[str], trained: Path, validation: Path, output: Path) -> dict[str, Any]:
    print(f"training with {name}", file=sys.stderr, flush=True)
    record = _lmflow(["finetune", *flags, "--dataset", str(trained), "--output", str(output), "--overwrite", *_LENGTH])
    losses = {
        kind: _lmflow(["evaluate", "--model", str(output), "--dataset", str(data), *_LENGTH])["nll_per_token"]
        for kind, data in (("trained", trained), ("validation", validation))
    }
    figures = {key: record[key] for key in ("learning_rate", "tokens_per_second", "peak_memory_bytes")}
    return {"name": name, **losses, **figures}


def _lmflow(arguments: list[str]) -> Any:
    command = [sys.executable, "-m", "lmflow_core", *arguments, "--json"]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def _table(results: list[dict[str, Any]]) -> str:
    lines = [f"{'':22}{'rate':>10}{'loss':>9}{'validation':>12}{'tokens/s':>10}{'peak GB':>9}"]
    lines += [
        f"{result['name']:22}{result['learning_rate']:10.2g}{result['trained']:9.4f}{result['validation']:12.4f}"
        f"{result['tokens_per_second']:10.1f}{result['peak_memory_bytes'] / 1e9:9.2f}"
        for result in results
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
