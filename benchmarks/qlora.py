"""What QLoRA takes and learns beside LoRA: bytes of the weights, memory, speed and loss.

    python benchmarks/qlora.py --data ROWS.json

Trains SmolLM2-135M-Instruct by LoRA and by QLoRA, at their own learning rate, on the same rows in the same order. The
loss (nats per labelled token) is the mean of the last ten steps, and that of the saved adapter on rows it was not
trained on, put on the unquantised model in both cases.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

MODEL = "smollm2-135m-instruct"
TUNERS: dict[str, list[str]] = {
    "LoRA": ["--tuner", "lora"],
    "QLoRA, nf4": ["--tuner", "qlora"],
    "QLoRA, fp4": ["--tuner", "qlora", "--qlora-type", "fp4"],
    "QLoRA, int8": ["--tuner", "qlora", "--qlora-type", "int8"],
    "QLoRA, int8 in bfloat16": ["--tuner", "qlora", "--qlora-type", "int8", "--dtype", "bfloat16"],
}
# The form of the quantised weights, and the number format of all others.
_FORMS = {
    "LoRA": (None, "float32"),
    "QLoRA, nf4": ("nf4", "float32"),
    "QLoRA, fp4": ("fp4", "float32"),
    "QLoRA, int8": ("int8", "float32"),
    "QLoRA, int8 in bfloat16": ("int8", "bfloat16"),
}
_LENGTH = ["--max-length", "512", "--length-policy", "truncate"]
_LAST = 10


def main() -> None:
    """Train with every tuner, measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="alpaca rows: a JSON list")
    parser.add_argument("--rows", type=int, default=300, help="rows to train on; the next 50 are for validation")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--only", nargs="+", default=list(TUNERS), choices=list(TUNERS), help="run these")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    rows = json.loads(arguments.data.read_text(encoding="utf-8"))
    training = ["--max-steps", str(arguments.steps), "--batch-size", str(arguments.batch_size), "--logging-steps", "1"]
    with tempfile.TemporaryDirectory() as folder:
        trained, validation = Path(folder) / "trained.json", Path(folder) / "validation.json"
        trained.write_text(json.dumps(rows[: arguments.rows]))
        validation.write_text(json.dumps(rows[arguments.rows : arguments.rows + 50]))
        results = [_measured(name, training, trained, validation, Path(folder) / "out") for name in arguments.only]
    print(json.dumps(results, indent=2) if arguments.json else _table(results))


def _measured(name: str, training: list[str], trained: Path, validation: Path, output: Path) -> dict[str, Any]:
    print(f"training by {name}", file=sys.stderr, flush=True)
    output_flags = ["--output", str(output), "--overwrite"]
    _lmflow("finetune", "--model", MODEL, "--dataset", str(trained), *output_flags, *TUNERS[name], *training)
    record = json.loads((output / "run.json").read_text(encoding="utf-8"))
    told_in = output.with_name("told.json")
    _lmflow("evaluate", "--model", str(output), "--dataset", str(validation), "--output-file", str(told_in))
    told = json.loads(told_in.read_text(encoding="utf-8"))
    return {
        "name": name,
        "loss": statistics.fmean(loss for _, loss in record["losses"][-_LAST:]),
        "validation": told["nll_per_token"],
        "weights": _bytes_of_weights(*_FORMS[name]),
        "tokens_per_second": record["tokens_per_second"],
        "peak_memory_bytes": record["peak_memory_bytes"],
    }


def _lmflow(*command: str) -> None:
    subprocess.run(["lmflow", *command, *_LENGTH], stdout=sys.stderr, check=True)


def _bytes_of_weights(form: str | None, dtype: str) -> int:
    """Return the bytes of the model's weights as they are trained on, without the adapters."""
    from dataclasses import replace

    from lmflow_core.api import ModelSettings, Quantization
    from lmflow_core.models.opening import open_model
    from lmflow_core.plugins.registry import Catalogue
    from lmflow_core.testing.tensors import bytes_held

    model: Any = open_model(ModelSettings(model=MODEL, device="cpu", dtype=dtype), Catalogue.discover()).model
    if form is not None:
        model.accept(replace(model.plan, quantization=Quantization(form, double=form != "int8")))
    model.load()
    return bytes_held(model.network)


def _table(results: list[dict[str, Any]]) -> str:
    first = results[0]
    lines = [
        "| | weights, MB | of the first | loss | validation | tokens/s | peak GB |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in results:
        cells = (
            result["name"],
            f"{result['weights'] / 1e6:.0f}",
            f"{result['weights'] / first['weights']:.3f}",
            f"{result['loss']:.4f} ({result['loss'] / first['loss'] - 1:+.1%})",
            f"{result['validation']:.4f} ({result['validation'] / first['validation'] - 1:+.1%})",
            f"{result['tokens_per_second']:.1f}",
            f"{result['peak_memory_bytes'] / 1e9:.2f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
