"""The same tasks in LMFlow's form and in that of lm-evaluation-harness: the same questions, likelihoods and figures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lm_eval", reason="lm-eval is an optional requirement")
pytest.importorskip("lmflow_transformers", reason="models are opened by the plugin that runs them")

_ROWS = [
    {"q": "What is the capital of France?", "c": {"text": ["Paris", "the Seine", "a dog"], "label": ["A", "B", "C"]}},
    {"q": "Who does not mind at all?", "c": {"text": ["the fox", "a lazy dog"], "label": ["1", "2"]}},
    {"q": "What changes?", "c": {"text": ["its weights", "Paris", "é the Seine"], "label": ["A", "B", "C"]}},
    {"q": "What jumps?", "c": {"text": ["over", "The quick brown fox"], "label": ["A", "B"]}},
    {"q": "Is 12 + 5 a sum? ", "c": {"text": ["no", "yes", "17"], "label": ["A", "B", "C"]}},
]
_KEYS = "A2CBA"
_ROWS = [
    {**row, "key": key, "sentence": f"The {row['c']['text'][0]} and _ mind the river.", "answer": f"x\n#### {n}"}
    for n, (row, key) in enumerate(zip(_ROWS, _KEYS, strict=True))
]
_OURS = {
    "choose": """
kind: multiple-choice
prompt: "Question: {q}\\nAnswer:"
choices: c.text
labels: c.label
answer: key
num_fewshot: 2
description: "Choose.\\n\\n"
metrics: [acc, acc_norm, acc_bytes]
""",
    "fill": """
kind: multiple-choice
prompt: "{sentence}"
choices: ["{c.text.0}", "{c.text.1}"]
blank: _
labels: [no, A]
answer: first
num_fewshot: 1
""".replace("[no, A]", '["no", "A"]'),
    "write": """
kind: exact-match
prompt: "{q}"
answer: answer
find_answer: "#### (.+)"
find: "([a-z]+)"
stops: ["Z", "\\n\\n"]
max_new_tokens: 9
num_fewshot: 0
""",
}
_THEIRS = {
    "choose": """
output_type: multiple_choice
doc_to_text: "Question: {{q}}\\nAnswer:"
doc_to_choice: "{{c.text}}"
doc_to_target: "{{c.label.index(key)}}"
fewshot_split: test
num_fewshot: 2
description: "Choose.\\n\\n"
metric_list: [{metric: acc}, {metric: acc_norm}, {metric: acc_bytes}]
""",
    "fill": """
output_type: multiple_choice
doc_to_text: "{{ 1 if first == 'A' else 0 }}"
doc_to_choice: "{{ [sentence.split('_')[0] + c.text[0], sentence.split('_')[0] + c.text[1]] }}"
doc_to_target: "{{ sentence.split('_')[1].strip() }}"
fewshot_split: test
num_fewshot: 1
metric_list: [{metric: acc}]
""",
    "write": """
output_type: generate_until
doc_to_text: "{{q}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: [Z, "\\n\\n"], max_gen_toks: 9, do_sample: false}
num_fewshot: 0
filter_list:
- {name: found, filter: [{function: regex, regex_pattern: "([a-z]+)"}, {function: take_first}]}
metric_list: [{metric: exact_match, regexes_to_ignore: ["(?s).*#### "]}]
""",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the same tasks in both forms."""
    folder = tmp_path_factory.mktemp("tasks")
    (folder / "theirs").mkdir()
    _write_rows(folder, [row["answer"] for row in _ROWS])
    for name in _OURS:
        (folder / f"{name}.yaml").write_text(f"data: rows.jsonl\n{_OURS[name]}", encoding="utf-8")
        data = f"dataset_path: json\ndataset_kwargs: {{data_files: {{test: {folder / 'rows.jsonl'}}}}}\n"
        head = f"task: {name}\n{data}test_split: test\n"
        (folder / "theirs" / f"{name}.yaml").write_text(head + _THEIRS[name], encoding="utf-8")
    return folder


def _write_rows(folder: Path, answers: list[str]) -> None:
    rows = [
        {**row, "first": ("A" if row["key"] == "A" else "no"), "answer": answer}
        for row, answer in zip(_ROWS, answers, strict=True)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _ours(lmflow_cli: Callable[..., Any], model: Path, folder: Path, tasks: list[str], flags: list[str]) -> Any:
    output, kept = folder / "found.json", folder / "samples.jsonl"
    files = ["--task-file", ",".join(str(folder / f"{task}.yaml") for task in tasks)]
    files += ["--output-file", str(output), "--samples-file", str(kept)]
    ran = lmflow_cli("evaluate", "--benchmark", "tasks", "--model", model, "--device", "cpu", *files, *flags)
    assert ran.status == 0, ran.stderr
    return json.loads(output.read_text())["metrics"], [json.loads(line) for line in kept.read_text().splitlines()]


def _theirs(model: Path, folder: Path, chat: bool, multiturn: bool) -> Any:
    from lm_eval.evaluator import evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    loaded = TaskManager(include_path=str(folder / "theirs"), include_defaults=False).load([*_THEIRS])
    for task in loaded["tasks"].values():
        task.set_fewshot_seed(seed=1234)
    peer = HFLM(pretrained=str(model), device="cpu", dtype="float32", softmax_dtype="float64", batch_size=1)
    return evaluate(
        peer,
        loaded,
        apply_chat_template=chat,
        fewshot_as_multiturn=multiturn,
        system_instruction="Be brief." if chat else None,
        bootstrap_iters=0,
    )


@pytest.mark.parametrize(("chat", "multiturn"), [(False, False), (True, True), (True, False)])
def test_questions_likelihoods_and_figures_are_those_of_the_harness(
    chat: bool, multiturn: bool, peaked_model: Path, folder: Path, lmflow_cli: Callable[..., Any]
) -> None:
    flags = ["--apply-chat-template", "--system-instruction", "Be brief."] if chat else []
    flags += [] if multiturn else ["--fewshot-as-multiturn", "false"]
    # What a random model writes is known when it has: two questions of five take it for right.
    _, written = _ours(lmflow_cli, peaked_model, folder, ["write"], flags)
    found = [row["found"][0] for row in written]
    assert len({*found} - {None}) > 1, found
    answers = [f"so\n#### {text}" if text and at < 3 else "so\n#### ?" for at, text in enumerate(found)]
    _write_rows(folder, answers)

    metrics, samples = _ours(lmflow_cli, peaked_model, folder, [*_OURS], flags)
    wanted = _theirs(peaked_model, folder, chat, multiturn)
    for task, told in wanted["results"].items():
        for key, value in told.items():
            metric, comma, _ = key.partition(",")
            if comma and "stderr" not in metric:
                assert metrics[f"{task} {metric}"] == pytest.approx(value), (task, metric)
    assert 0 < metrics["write exact_match"] < 1
    assert len(samples) == 3 * len(_ROWS)
    for row in samples:
        peer = next(each for each in wanted["samples"][row["task"]] if each["doc_id"] == row["id"])
        assert row["asked"] == json.loads(json.dumps(peer["arguments"]))
        if row["task"] == "write":
            assert [row["found"][0] or "[invalid]"] == list(peer["filtered_resps"])
        else:
            for (likelihood, greedy), (value, likeliest) in zip(row["found"], peer["filtered_resps"], strict=True):
                assert likelihood == pytest.approx(value, abs=1e-4)
                assert greedy == likeliest
