"""Whether a change of the code changed training: the same runs by this checkout and by an earlier commit, in turn.

    python benchmarks/against_commit.py --data ROWS.json --commit REVISION

Each run is a process of its own on SmolLM2-135M-Instruct, float32: full fine-tuning, LISA, LoRA and distillation. The
losses must be the same, bit for bit; speeds are medians over the rounds, in which the two take turns.
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

_ROOT = Path(__file__).parents[1]
MODEL = "smollm2-135m-instruct"
RUNS: dict[str, list[str]] = {
    "full": ["--tuner", "full"],
    "LISA": ["--tuner", "lisa"],
    "LoRA": ["--tuner", "lora"],
    "distillation": ["--objective", "distillation", "--tuner", "draft", "--draft-layers", "6"],
}


def main() -> None:
    """Run both and print the table; exits with 1 when losses differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="alpaca rows: a JSON list")
    parser.add_argument("--commit", required=True, help="the revision that is compared with")
    parser.add_argument("--rows", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=RUNS, help="one of the runs")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = folder / "rows.json"
        rows.write_text(json.dumps(json.loads(arguments.data.read_text(encoding="utf-8"))[: arguments.rows]))
        subprocess.run(["git", "clone", "-q", str(_ROOT), str(folder / "before")], check=True)
        subprocess.run(["git", "-C", str(folder / "before"), "checkout", "-q", arguments.commit], check=True)
        results = [_compared(run, rows, folder, arguments.rounds) for run in RUNS if arguments.only in (None, run)]
    print(json.dumps(results, indent=2) if arguments.json else _table(results))
    if not all(result["same_losses"] for result in results):
        raise SystemExit(1)


def _compared(run: str, rows: Path, folder: Path, rounds: int) -> dict[str, Any]:
    records: dict[str, list[dict[str, Any]]] = {"before": [], "now": []}
    for number in range(rounds):
        for which, checkout in (("before", folder / "before"), ("now", _ROOT)):
            print(f"{run}, round {number + 1}, {which}", file=sys.stderr, flush=True)
            records[which].append(_record(checkout, RUNS[run], rows, folder / "out"))
    before, now = records["before"], records["now"]
    return {
        "run": run,
        "same_losses": len({json.dumps(record["losses"]) for record in (*before, *now)}) == 1,
        "last_loss": now[-1]["losses"][-1][1],
        "speed": _ratio(before, now, "tokens_per_second"),
        "memory": _ratio(before, now, "peak_memory_bytes"),
        "tokens_per_second": statistics.median(record["tokens_per_second"] for record in now),
        "peak_memory_bytes": statistics.median(record["peak_memory_bytes"] for record in now),
    }


def _ratio(before: list[dict[str, Any]], now: list[dict[str, Any]], name: str) -> float:
    return statistics.median(record[name] for record in now) / statistics.median(record[name] for record in before)


def _record(checkout: Path, flags: list[str], rows: Path, output: Path) -> dict[str, Any]:
    """Return the ``run.json`` of a run by the code of a checkout, whose plugins stand before those installed."""
    sources = [checkout, *sorted(checkout.glob("plugins/*/src"))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, sources)), "HF_HUB_OFFLINE": "1"}
    names = ",".join(path.parent.name.removeprefix("lmflow-") for path in checkout.glob("plugins/*/src"))
    command = [sys.executable, "-m", "lmflow_core", "finetune", "--model", MODEL, "--dataset", str(rows)]
    command += ["--batch-size", "8", "--max-length", "512", "--length-policy", "truncate", "--epochs", "2", *flags]
    command += ["--logging-steps", "1", "--overwrite", "--output", str(output), "--json"]
    environment["LMFLOW_PLUGINS"] = names
    finished = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=checkout)
    if finished.returncode:
        raise SystemExit(f"{' '.join(command)}\n{finished.stderr}")
    record: dict[str, Any] = json.loads(finished.stdout)
    return record


def _table(results: list[dict[str, Any]]) -> str:
    lines = [f"{'':14}{'losses':>10}{'speed':>8}{'memory':>8}{'tokens/s':>10}{'peak GB':>9}"]
    for result in results:
        same = "the same" if result["same_losses"] else "DIFFER"
        lines.append(
            f"{result['run']:14}{same:>10}{result['speed']:8.3f}{result['memory']:8.3f}"
            f"{result['tokens_per_second']:10.1f}{result['peak_memory_bytes'] / 1e9:9.2f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
