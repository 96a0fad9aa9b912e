"""Tasks of lm-evaluation-harness over rows of public benchmarks that lie in a folder: no network is needed.

    python benchmarks/public_tasks.py ROWS --output tasks
    lmflow evaluate --model MODEL --benchmark lm-eval --include-path tasks --tasks arc_easy,piqa

ROWS holds JSONL files with the fields of the harness's own tasks: ``arc_easy.jsonl``, ``hellaswag.jsonl``, … Questions
are put as there; a task whose file is missing is left out. Examples (``--num-fewshot``) come from the same rows.

With ``--held-out N`` the tasks ask the first N rows of each file alone, and ``train.json`` beside the tasks holds the
questions and right answers of all other rows as LMFlow's ``text2text``, to fine-tune on.
"""

from __future__ import annotations

import argparse
import ast
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

_ARC = {
    "doc_to_text": "Question: {{question}}\nAnswer:",
    "doc_to_target": "{{choices.label.index(answerKey)}}",
    "doc_to_choice": "{{choices.text}}",
}
_CHOICES: Mapping[str, Mapping[str, Any]] = {
    "arc_easy": _ARC,
    "arc_challenge": _ARC,
    "boolq": {
        "doc_to_text": "{{passage}}\nQuestion: {{question}}?\nAnswer:",
        "doc_to_target": "label",
        "doc_to_choice": ["no", "yes"],
    },
    "hellaswag": {"doc_to_text": "{{query}}", "doc_to_target": "label", "doc_to_choice": "endings"},
    "openbookqa": {**_ARC, "doc_to_text": "{{question_stem}}"},
    "piqa": {
        "doc_to_text": "Question: {{goal}}\nAnswer:",
        "doc_to_target": "label",
        "doc_to_choice": "{{[sol1, sol2]}}",
    },
    # What stands behind the gap is scored, after the sentence with each name in it.
    "winogrande": {
        "doc_to_text": "{{answer|int - 1}}",
        "doc_to_target": "{{sentence.split('_')[1].strip()}}",
        "doc_to_choice": "{{[sentence.split('_')[0] + option1, sentence.split('_')[0] + option2]}}",
    },
}
_GSM8K = {
    "output_type": "generate_until",
    "doc_to_text": "Question: {{question}}\nAnswer:",
    "doc_to_target": "{{answer.split('#### ')[1]}}",
    "generation_kwargs": {"until": ["Question:"], "do_sample": False, "max_gen_toks": 128},
    "filter_list": [
        {
            "name": "last number",
            "filter": [
                {"function": "regex", "regex_pattern": "(-?[0-9.,]*[0-9])", "group_select": -1},
                {"function": "take_first"},
            ],
        }
    ],
    "metric_list": [{"metric": "exact_match", "ignore_case": True, "regexes_to_ignore": [","]}],
}


def write_tasks(rows: Path, folder: Path, held_out: int | None = None) -> list[str]:
    """Write a task for each file of rows that is known, and return their names.

    Args:
        rows: folder of the files.
        folder: for the tasks.
        held_out: how many rows of each file are asked, where not all are; the others become ``train.json``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    asked = {"output_type": "multiple_choice", "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}]}
    known = {**{name: {**asked, **task} for name, task in _CHOICES.items()}, "gsm8k": _GSM8K}
    names = [name for name in known if (rows / f"{name}.jsonl").is_file()]
    learned: list[dict[str, str]] = []
    for name in names:
        file = (rows / f"{name}.jsonl").resolve()
        if held_out is not None:
            lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
            file = (folder / f"{name}.jsonl").resolve()
            file.write_text("".join(lines[:held_out]), encoding="utf-8")
            learned += [_learned(_CHOICES[name], json.loads(line)) for line in lines[held_out:] if name in _CHOICES]
        data = {"data_files": {"test": str(file)}}
        where = {"dataset_path": "json", "dataset_kwargs": data, "test_split": "test", "fewshot_split": "test"}
        task = {"task": name, **where, **known[name]}
        # JSON is YAML, too.
        (folder / f"{name}.yaml").write_text(json.dumps(task, indent=1), encoding="utf-8")
    if learned:
        rows_of = {"type": "text2text", "instances": learned}
        (folder / "train.json").write_text(json.dumps(rows_of, indent=1), encoding="utf-8")
    return names


def _learned(task: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, str]:
    """Return a question of multiple choice and its right answer, as the harness puts them together."""
    choices = task["doc_to_choice"]
    if isinstance(choices, str):
        choices = ast.literal_eval(str(_rendered(choices, row))) if "{{" in choices else row[choices]
    text, target = _rendered(task["doc_to_text"], row), _rendered(task["doc_to_target"], row)
    if text.isdigit():  # the choices stand before what is scored
        return {"input": choices[int(text)].strip(), "output": f" {target}"}
    return {"input": text, "output": f" {choices[int(target)]}"}


def _rendered(text: str, row: Mapping[str, Any]) -> str:
    return jinja2.Template(text).render(**row) if "{{" in text else str(row[text])


def main() -> None:
    """Write the tasks and tell their names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path, help="folder of the JSONL files")
    parser.add_argument("--output", type=Path, default=Path("tasks"), help="folder for the tasks")
    parser.add_argument("--held-out", type=int, help="ask this many rows of each file, and learn the others")
    arguments = parser.parse_args()
    print(",".join(write_tasks(arguments.rows, arguments.output, arguments.held_out)))


if __name__ == "__main__":
    main()
