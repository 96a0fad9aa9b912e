"""What LISA learns against full fine-tuning: the loss after the same epochs on the same rows.

    python benchmarks/lisa_loss.py --data ROWS.json

Trains SmolLM2-135M-Instruct whole and by LISA, two layers at a time, at their own learning rates (2e-5 and 1e-4), by
LISA with the embeddings frozen (at 1e-4 and 3e-4), and at 2e-4. Then it measures the loss (NLL per labelled token) of
each result on the rows it was trained on and on rows it was not.
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

MODEL = "smollm2-135m-instruct"
TUNERS: dict[str, list[str]] = {
    "full": ["--tuner", "full"],
    "LISA": ["--tuner", "lisa"],
    "LISA, embeddings frozen": ["--tuner", "lisa", "--lisa-freeze-embeddings"],
    "LISA, embeddings frozen, at 3e-4": ["--tuner", "lisa", "--lisa-freeze-embeddings", "--lr", "3e-4"],
    "LISA at 2e-4": ["--tuner", "lisa", "--lr", "2e-4"],
}
_LENGTH = ["--max-length", "512", "--length-policy", "truncate"]


def main() -> None:
    """Train with every tuner, measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="alpaca rows: a JSON list")
    parser.add_argument("--rows", type=int, default=300, help="rows to train on; the next 100 are for validation")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--only", help="run tuners whose name holds this text")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    rows = json.loads(arguments.data.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        trained, validation = Path(folder) / "trained.json", Path(folder) / "validation.json"
        trained.write_text(json.dumps(rows[: arguments.rows]))
        validation.write_text(json.dumps(rows[arguments.rows : arguments.rows + 100]))
        results = [
            _measured(name, flags, arguments.epochs, trained, validation, Path(folder) / "out")
            for name, flags in TUNERS.items()
            if arguments.only is None or arguments.only in name
        ]
    print(json.dumps(results, indent=2) if arguments.json else _table(results))


def _measured(
    name: str, flags: list[str], epochs: int, trained: Path, validation: Path, output: Path
) -> dict[str, Any]:
    print(f"training {name}", file=sys.stderr, flush=True)
    record = _lmflow(
        ["finetune", "--model", MODEL, "--dataset", str(trained), "--output", str(output), "--overwrite"],
        [*flags, "--epochs", str(epochs), "--batch-size", "8", *_LENGTH],
    )
    losses = {
        kind: _lmflow(["evaluate", "--model", str(output), "--dataset", str(data)], _LENGTH)["nll_per_token"]
        for kind, data in (("trained", trained), ("validation", validation))
    }
    figures = {key: record[key] for key in ("tokens_per_second", "peak_memory_bytes")}
    return {"name": name, **losses, **figures}


def _lmflow(command: list[str], flags: list[str]) -> Any:
    finished = subprocess.run(["lmflow", *command, *flags, "--json"], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(finished.stdout)


def _table(results: list[dict[str, Any]]) -> str:
    lines = [f"{'':34}{'loss':>8}{'validation':>11}{'tokens/s':>10}{'peak GB':>9}"]
    for result in results:
        lines.append(
            f"{result['name']:34}{result['trained']:8.4f}{result['validation']:10.4f}"
            f"{result['tokens_per_second']:10.1f}{result['peak_memory_bytes'] / 1e9:9.2f}"
        )
    for result in results[1:]:
        ratio = result["trained"] / results[0]["trained"]
        lines.append(f"{result['name']}: {ratio - 1:+.1%} of the loss of {results[0]['name']}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
