"""Speed of a file of prompts, by this checkout and by an earlier commit.

    python benchmarks/prompt_files.py --data ROWS.json --commit REVISION

Each answers the same 64 instructions with SmolLM2-135M-Instruct, float32, greedily, 8 and 16 at a time, and
this checkout 32, too; the answers must be the same.
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

from lmflow_core.report.console import table

_ROOT = Path(__file__).parents[1]
_MODEL = "smollm2-135m-instruct"


def main() -> None:
    """Run both and print the table; exits with 1 when answers differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="alpaca rows: a JSON list")
    parser.add_argument("--commit", required=True, help="the revision that is compared with")
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=256, help="longest answer")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prompts = folder / "prompts.jsonl"
        rows = json.loads(arguments.data.read_text(encoding="utf-8"))[: arguments.prompts]
        texts = [json.dumps({"prompt": f"{row['instruction']} {row['input']}".strip()}) for row in rows]
        prompts.write_text("\n".join(texts) + "\n", encoding="utf-8")
        subprocess.run(["git", "clone", "-q", str(_ROOT), str(folder / "before")], check=True)
        subprocess.run(["git", "-C", str(folder / "before"), "checkout", "-q", arguments.commit], check=True)
        runs = [("before", folder / "before", size) for size in (8, 16)] + [
            ("now", _ROOT, size) for size in (8, 16, 32)
        ]
        told = [(which, size, *_answered(where, prompts, size, arguments.tokens)) for which, where, size in runs]
    print(table(("CODE", "AT A TIME", "TOKENS/S"), [(which, size, f"{speed:.1f}") for which, size, speed, _ in told]))
    if len({answers for *_, answers in told}) != 1:
        raise SystemExit("an answer differs")


def _answered(checkout: Path, prompts: Path, at_a_time: int, tokens: int) -> tuple[float, tuple[str, ...]]:
    """Return tokens per second and the answers, by a checkout, whose plugins stand before those installed."""
    sources = [checkout, *sorted(checkout.glob("plugins/*/src"))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, sources)), "HF_HUB_OFFLINE": "1"}
    output = prompts.with_name(f"{checkout.name}-{at_a_time}.jsonl")
    command = [sys.executable, "-m", "lmflow_core", "generate", "--model", _MODEL, "--prompts", str(prompts)]
    command += ["--output", str(output), "--batch-size", str(at_a_time), "--max-new-tokens", str(tokens), "--json"]
    finished = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=checkout)
    if finished.returncode:
        raise SystemExit(f"{' '.join(command)}\n{finished.stderr}")
    report: dict[str, Any] = json.loads(finished.stdout)
    rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    return report["tokens_per_second"], tuple(row["answer"] for row in rows)


if __name__ == "__main__":
    main()
