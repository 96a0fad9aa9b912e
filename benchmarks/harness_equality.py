"""Whether ``--benchmark lm-eval`` gives what lm-evaluation-harness gives by its own class for transformers.

    python benchmarks/harness_equality.py ROWS --limit 25

Real questions of several tasks (see ``public_tasks.py`` for the files that ROWS holds) go to one model twice: through
``lmflow evaluate`` and through the harness with ``HFLM``, plain and by the model's chat template. The table has, for
each task, how many requests there were, the largest difference of a log-likelihood, and the accuracies. Both work in
float32; HFLM takes its logarithms in float64, so that it is the exact one.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from public_tasks import write_tasks

from lmflow_core.report.console import table

_TASKS = ("arc_easy", "hellaswag", "piqa", "winogrande")
_HEADER = ("task", "chat template", "requests", "largest difference", "acc", "acc of HFLM")


def main() -> None:
    """Ask both and print the table."""
    arguments = _arguments()
    os.environ["HF_HUB_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_tasks(arguments.rows, folder / "tasks")
        rows = [row for chat in (False, True) for row in _compared(arguments, folder, chat)]
    print(table(_HEADER, rows))
    print(f"\n{sum(int(row[2]) for row in rows)} requests in all")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path, help="folder of the JSONL files")
    parser.add_argument("--tasks", nargs="+", default=_TASKS)
    parser.add_argument("--model", default=str(Path.home() / ".cache/lmflow/smollm2-135m-instruct"), help="a folder")
    parser.add_argument("--limit", type=int, default=25, help="questions of each task")
    parser.add_argument("--shots", type=int, default=2, help="examples before each question")
    return parser.parse_args()


def _compared(arguments: argparse.Namespace, folder: Path, chat: bool) -> Iterator[tuple[str, ...]]:
    ours = _of_lmflow(arguments, folder, chat)
    theirs = _of_the_harness(arguments, folder, chat)
    for task in arguments.tasks:
        samples = [row for row in ours if row["task"] == task]
        peers = {row["doc_id"]: row for row in theirs["samples"][task]}
        pairs = [(_found(row["found"]), _found(peers[row["id"]]["filtered_resps"])) for row in samples]
        far = [abs(one - other) for found, peer in pairs for one, other in zip(found, peer, strict=True)]
        right = sum(row["scores"]["acc"] for row in samples) / len(samples)
        accuracy = theirs["results"][task]["acc,none"]
        yield task, "yes" if chat else "no", str(len(far)), f"{max(far):.1e}", f"{right:.4f}", f"{accuracy:.4f}"


def _found(answers: Sequence[Any]) -> list[float]:
    """Return the log-likelihood of each choice."""
    return [float(logprob) for logprob, _ in answers]


def _of_lmflow(arguments: argparse.Namespace, folder: Path, chat: bool) -> list[dict[str, Any]]:
    kept = folder / f"samples-{chat}.jsonl"
    command = [sys.executable, "-m", "lmflow_core", "evaluate", "--benchmark", "lm-eval", "--model", arguments.model]
    command += ["--device", "cpu", "--dtype", "float32", "--include-path", str(folder / "tasks")]
    command += ["--tasks", ",".join(arguments.tasks), "--limit", str(arguments.limit), "--samples-file", str(kept)]
    command += ["--num-fewshot", str(arguments.shots), *["--apply-chat-template"] * chat]
    subprocess.run(command, stdout=sys.stderr, check=True)
    return [json.loads(line) for line in kept.read_text(encoding="utf-8").splitlines()]


def _of_the_harness(arguments: argparse.Namespace, folder: Path, chat: bool) -> Any:
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    return simple_evaluate(
        HFLM(arguments.model, device="cpu", dtype="float32", softmax_dtype="float64", batch_size=1),
        tasks=[*arguments.tasks],
        task_manager=TaskManager(include_path=str(folder / "tasks"), include_defaults=False),
        num_fewshot=arguments.shots,
        limit=arguments.limit,
        apply_chat_template=chat,
        fewshot_as_multiturn=chat,
        bootstrap_iters=0,
    )


if __name__ == "__main__":
    main()
