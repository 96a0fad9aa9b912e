"""What a model learns from the best of its own answers: RAFT on SmolLM2-135M-Instruct, on prompts it never saw.

    python benchmarks/raft.py [--task json|sums]

``json`` is the README's example: 48 prompts that ask for JSON of a schema, four answers each, four rounds. ``sums`` is
harder: sums of two numbers up to twelve, scored by the number alone; 72 of them are trained on and the other 49 are
measured. Before and after training each prompt is answered once by the likeliest tokens and four times at temperature
1. Told are the mean reward with its interval of 95 %, the share of answers that are worth 1, the divergence from the
starting model (KL), the share of a prompt's answers that differ, and where the time went.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

MODEL = "smollm2-135m-instruct"
EXAMPLES = Path(__file__).parents[1] / "examples"
_SUMS_TRAINED = 72


def main() -> None:
    """Measure, train, measure again, and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=("json", "sums"), default="json")
    parser.add_argument("--model", default=MODEL, help="as lmflow takes it")
    parser.add_argument("flags", nargs="*", help="further flags of lmflow finetune, behind --")
    arguments = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        reward, validation, training = (_json if arguments.task == "json" else _sums)(folder)
        before = _measured(arguments.model, arguments.model, reward, validation, folder)
        started = time.perf_counter()
        output = folder / "out"
        _lmflow("finetune", "--model", arguments.model, *training, *reward, *arguments.flags, "--output", str(output))
        seconds = time.perf_counter() - started
        after = _measured(str(output), arguments.model, reward, validation, folder)
        record = json.loads((output / "run.json").read_text(encoding="utf-8"))
    _tell(before, after, record, seconds)


def _json(folder: Path) -> tuple[list[str], Path, list[str]]:
    """Return the flags of the reward, the validation prompts and the flags of training."""
    data = EXAMPLES / "json_answers"
    reward = ["--reward", "json-schema", "--json-schema-file", str(data / "schema.json")]
    return reward, data / "validation.jsonl", [*_training(data / "train.jsonl", 4, 48), "--epochs", "4"]


def _sums(folder: Path) -> tuple[list[str], Path, list[str]]:
    pairs = [(first, second) for first in range(2, 13) for second in range(2, 13)]
    random.Random(0).shuffle(pairs)
    rows = [json.dumps({"prompt": f"What is {a} plus {b}?", "answer": str(a + b)}) for a, b in pairs]
    train, validation = folder / "train.jsonl", folder / "validation.jsonl"
    train.write_text("\n".join(rows[:_SUMS_TRAINED]), encoding="utf-8")
    validation.write_text("\n".join(rows[_SUMS_TRAINED:]), encoding="utf-8")
    return ["--reward", "arithmetic"], validation, [*_training(train, 8, 32), "--epochs", "5"]


def _training(data: Path, samples: int, tokens: int) -> list[str]:
    flags = ["--dataset", str(data), "--objective", "raft", "--raft-samples", str(samples), "--batch-size", "8"]
    rate = ["--lr", "2e-5", "--lr-scheduler-type", "constant", "--warmup-ratio", "0"]
    return [*flags, "--raft-max-new-tokens", str(tokens), *rate]


def _measured(model: str, reference: str, reward: list[str], data: Path, folder: Path) -> dict[str, dict[str, Any]]:
    """Return what the likeliest and the sampled answers are worth."""
    found = {}
    for name, samples in (("likeliest", "1"), ("sampled", "4")):
        told = folder / "told.json"
        flags = ["--model", model, "--dataset", str(data), *reward, "--samples", samples, "--max-new-tokens", "48"]
        far = ["--reference-model", reference] if name == "sampled" else []
        _lmflow("evaluate", *flags, *far, "--output-file", str(told))
        found[name] = json.loads(told.read_text(encoding="utf-8"))
    return found


def _tell(before: dict[str, Any], after: dict[str, Any], record: dict[str, Any], seconds: float) -> None:
    for title, found in (("before", before), ("after", after)):
        for name, result in found.items():
            print(f"{title}, {name} answers: {json.dumps(result['metrics'])}")
    print(f"training took {seconds:.0f} s: {json.dumps(record['metrics'])}")
    for name in ("sampled_reward", "distinct"):
        print(f"{name} by round: {json.dumps(record['curves'][name])}")


def _lmflow(*command: str) -> None:
    subprocess.run([sys.executable, "-m", "lmflow_core", *command], stdout=sys.stderr, check=True)


if __name__ == "__main__":
    main()
