"""What a reward model learns from real pairs: how often it finds the better of two answers it has not seen.

    python benchmarks/reward_accuracy.py --data PAIRS.json

Trains SmolLM2-135M-Instruct by LoRA on the first pairs and measures it on the others, sequences cut at a length; pairs
that are the same within it are left out. Beside it stands the starting model, which judges by the mean log-likelihood
of the tokens of an answer. The interval is Wilson's of 95 %.
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


def main() -> None:
    """Measure, train, measure again, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="preference pairs: a JSON list")
    parser.add_argument("--model", default=MODEL, help="as lmflow takes it")
    parser.add_argument("--train", type=int, default=200, help="pairs to train on; the others are held out")
    parser.add_argument("--max-length", type=int, default=1024)
    parser.add_argument("--epochs", type=float, default=2)
    parser.add_argument("--tuner", default="lora")
    parser.add_argument("--lr", help="the tuner's when left out")
    arguments = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    pairs = json.loads(arguments.data.read_text(encoding="utf-8"))
    length = ["--max-length", str(arguments.max_length), "--length-policy", "truncate"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "train.json").write_text(json.dumps(pairs[: arguments.train]))
        (folder / "held-out.json").write_text(json.dumps(pairs[arguments.train :]))
        before = _measured(arguments.model, folder, length)
        training = [
            "--dataset",
            str(folder / "train.json"),
            "--tuner",
            arguments.tuner,
            "--epochs",
            str(arguments.epochs),
        ]
        training += ["--lr", arguments.lr] if arguments.lr else []
        command = ["finetune", "--model", arguments.model, "--objective", "reward", *training]
        _lmflow(*command, *length, "--output", str(folder / "reward"))
        after = _measured(str(folder / "reward"), folder, length)
    print("| | pairs in order | interval | pairs |\n|---|---|---|---|")
    for title, found in (("starting model, mean log-likelihood", before), ("reward model", after)):
        interval = f"{found['accuracy_at_least']:.1%} to {found['accuracy_at_most']:.1%}"
        print(f"| {title} | {found['accuracy']:.1%} | {interval} | {found['pairs']} |")


def _measured(model: str, folder: Path, length: list[str]) -> dict[str, Any]:
    data, told = folder / "held-out.json", folder / "told.json"
    benchmark = ["--benchmark", "pairwise-accuracy", "--dataset", str(data), "--output-file", str(told)]
    _lmflow("evaluate", "--model", model, *benchmark, *length)
    metrics: dict[str, Any] = json.loads(told.read_text(encoding="utf-8"))["metrics"]
    return metrics


def _lmflow(*command: str) -> None:
    subprocess.run([sys.executable, "-m", "lmflow_core", *command], stdout=sys.stderr, check=True)


if __name__ == "__main__":
    main()
