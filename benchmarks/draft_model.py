"""Makes the draft model that the figures of ``decoding_speed.py --draft-model`` are measured with.

``python benchmarks/draft_model.py --data alpaca_en_demo.json --output FOLDER`` takes the prompts of alpaca rows, leaves
the last ones out, lets the model answer the rest greedily, and distils a draft model from prompts and answers. FOLDER
then holds ``draft`` and ``validation.jsonl``, the prompts that were left out.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from lmflow_core.cli.main import run

_VALIDATION = 60
_SKIPPED = 300  # the rows that other figures use
_LONGEST = 600  # characters


def _prompts(data: Path) -> list[str]:
    rows = json.loads(data.read_text(encoding="utf-8"))
    texts = ("\n\n".join(part for part in (row["instruction"], row["input"]) if part) for row in rows)
    return [text for text in texts if len(text) < _LONGEST]


def _write(file: Path, rows: Iterable[Mapping[str, object]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _lmflow(*arguments: object) -> None:
    if status := run([str(argument) for argument in arguments]):
        sys.exit(status)


def _talks(answers: Path) -> Iterable[Mapping[str, object]]:
    """Yield conversations of a prompt and the model's answer to it."""
    for line in answers.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row.get("answer"):
            yield {"messages": [*row["messages"], {"role": "assistant", "content": row["answer"]}]}


def main() -> None:
    """Make it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="JSON file of alpaca rows")
    parser.add_argument("--output", type=Path, required=True, help="folder for all that is made")
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--layers", type=int, default=3)
    parser.add_argument("--vocabulary", type=int, default=4096)
    parser.add_argument("--steps", type=int, default=420)
    arguments = parser.parse_args()
    folder = arguments.output
    folder.mkdir(parents=True, exist_ok=True)
    prompts = _prompts(arguments.data)
    asked, validation = prompts[_SKIPPED:-_VALIDATION], prompts[-_VALIDATION:]
    _write(folder / "validation.jsonl", ({"prompt": text} for text in validation))
    _write(folder / "asked.jsonl", ({"prompt": text} for text in asked))
    generating = ("--prompts", folder / "asked.jsonl", "--output", folder / "answers.jsonl", "--batch-size", 32)
    _lmflow("generate", "--model", arguments.model, *generating, "--max-new-tokens", 128, "--overwrite")
    _write(folder / "talks.jsonl", _talks(folder / "answers.jsonl"))
    _lmflow(
        *("distill-draft", "--model", arguments.model, "--dataset", folder / "talks.jsonl"),
        *("--output", folder / "draft", "--overwrite", "--train-on", "all", "--max-steps", arguments.steps),
        *("--draft-layers", arguments.layers, "--draft-vocabulary", arguments.vocabulary),
        *("--batch-size", 2, "--lr", "3e-3", "--adam-beta2", 0.98),
    )


if __name__ == "__main__":
    main()
