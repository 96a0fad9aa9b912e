"""The benchmark ``lmflow``: its figures are those of plain loops over a network of transformers."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lmflow_transformers", reason="models are opened by the plugin that runs them")

_TEXTS = ["The quick brown fox jumps over the lazy dog. ", "Paris é is the capital", "hello world " * 4]
_PAIRS = [("What is the capital?", " Paris, on the Seine."), ("Who jumps?", " fox"), ("1 + 1 =", " 2 é " * 4)]
# An example is made of pieces, each with whether it is labelled.
_Pieces = list[tuple[str, bool]]
_EXAMPLES: dict[str, list[_Pieces]] = {
    "texts": [[(f"{text}<|im_end|>", True)] for text in _TEXTS],
    "pairs": [[(prompt, False), (f"{answer}<|im_end|>", True)] for prompt, answer in _PAIRS],
    "chats": [
        [
            (f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n", False),
            (f"{answer}<|im_end|>", True),
            ("\n<|im_start|>user\nAgain<|im_end|>\n<|im_start|>assistant\n", False),
            (f"It is{answer}<|im_end|>", True),
            ("\n", False),
        ]
        for prompt, answer in _PAIRS
    ],
}
_ROWS: dict[str, list[dict[str, Any]]] = {
    "texts": [{"text": text} for text in _TEXTS],
    "pairs": [{"input": prompt, "output": answer} for prompt, answer in _PAIRS],
    "chats": [
        {
            "messages": [
                {"role": "user", "content": prompt},
                {"role": "assistant", "content": answer},
                {"role": "user", "content": "Again"},
                {"role": "assistant", "content": f"It is{answer}"},
            ]
        }
        for prompt, answer in _PAIRS
    ],
}
_TYPES = {"texts": "text_only", "pairs": "text2text", "chats": "conversation"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a data set of each type, in the original LMFlow's form."""
    folder = tmp_path_factory.mktemp("data")
    for name, rows in _ROWS.items():
        (folder / name).mkdir()
        written = {"type": _TYPES[name], "instances": rows}
        (folder / name / "rows.json").write_text(json.dumps(written), encoding="utf-8")
    return folder


class _Reference:
    """A network and a tokenizer as transformers opens them."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self.network: Any = AutoModelForCausalLM.from_pretrained(folder)

    def ids(self, text: str) -> list[int]:
        return [int(number) for number in self.tokenizer(text, add_special_tokens=False).input_ids]

    def nll(self, pieces: _Pieces, context: int, stride: int) -> tuple[float, int]:
        """Return the sum over the labelled tokens, each scored alone behind what its window holds, and their number."""
        import torch

        parts = [(self.ids(text), trained) for text, trained in pieces]
        ids = [number for part, _ in parts for number in part]
        labelled = [trained for part, trained in parts for _ in part]
        total = 0.0
        for place in range(1, len(ids)):
            if labelled[place]:
                end = context if place < context else context + stride * math.ceil((place - context + 1) / stride)
                start = max(0, min(end, len(ids)) - context)
                with torch.no_grad():
                    logits = self.network(torch.tensor([ids[start:place]])).logits[0, -1].double()
                total -= float(torch.log_softmax(logits, 0)[ids[place]])
        return total, sum(labelled[1:])

    def answer(self, prompt: str, most: int) -> str:
        import torch

        ids = self.ids(prompt)
        written = self.network.generate(torch.tensor([ids]), max_new_tokens=most, do_sample=False)[0, len(ids) :]
        return str(self.tokenizer.decode(written, skip_special_tokens=True))


@pytest.fixture(scope="module")
def reference(peaked_model: Path) -> _Reference:
    return _Reference(peaked_model)


def _measured(cli: Callable[..., Any], model: Path, folder: Path, *flags: object) -> tuple[Any, list[dict[str, Any]]]:
    samples = folder / "samples.jsonl"
    flags = ("--model", model, "--device", "cpu", "--samples-file", samples, *flags)
    result = cli("evaluate", "--benchmark", "lmflow", "--json", *flags)
    assert result.status == 0, result.stderr
    return result.json()["metrics"], [json.loads(line) for line in samples.read_text().splitlines()]


def _bytes(name: str, pieces: _Pieces, reference: _Reference) -> int:
    """Return the bytes of the labelled text, of which a text's first token is not scored."""
    written = sum(len(text.removesuffix("<|im_end|>").encode()) for text, trained in pieces if trained)
    first = reference.ids(pieces[0][0])[:1]
    return written - (len(reference.tokenizer.decode(first).encode()) if name == "texts" else 0)


def _error_of_ratio(sums: Sequence[float], counts: Sequence[int]) -> float:
    """Return the error of a ratio by its linearisation, one residual at a time."""
    ratio = sum(sums) / sum(counts)
    residuals = [total - ratio * count for total, count in zip(sums, counts, strict=True)]
    mean_count = sum(counts) / len(counts)
    variance = sum(one * one for one in residuals) / (len(sums) - 1)
    return math.sqrt(variance / len(sums)) / mean_count


@pytest.mark.parametrize(("context", "stride"), [(None, None), (16, 6)])
def test_likelihoods_are_those_of_a_plain_loop(
    context: int | None,
    stride: int | None,
    data: Path,
    reference: _Reference,
    peaked_model: Path,
    tmp_path: Path,
    lmflow_cli: Callable[..., Any],
) -> None:
    flags = () if context is None else ("--context", context, "--stride", stride)
    names = ",".join(str(data / name) for name in _EXAMPLES)
    found, samples = _measured(lmflow_cli, peaked_model, tmp_path, "--dataset", names, "--metric", "nll,ppl", *flags)
    wanted: dict[str, float] = {}
    for name, examples in _EXAMPLES.items():
        scored = [reference.nll(pieces, context or 256, stride or 128) for pieces in examples]
        sums, tokens = [total for total, _ in scored], [count for _, count in scored]
        sizes = [_bytes(name, pieces, reference) for pieces in examples]
        own = [row for row in samples if row["task"] == name]
        assert [row["tokens"] for row in own] == tokens
        assert [row["bytes"] for row in own] == sizes
        assert [row["scores"]["nll"] for row in own] == pytest.approx(sums, rel=1e-5)
        per_token = sum(sums) / sum(tokens)
        figures = {
            "nll": (statistics.fmean(sums), statistics.stdev(sums) / math.sqrt(len(sums))),
            "nll per token": (per_token, _error_of_ratio(sums, tokens)),
            "nll per byte": (sum(sums) / sum(sizes), _error_of_ratio(sums, sizes)),
            "bits per byte": (sum(sums) / sum(sizes) / math.log(2), _error_of_ratio(sums, sizes) / math.log(2)),
            "perplexity": (math.exp(per_token), math.exp(per_token) * _error_of_ratio(sums, tokens)),
        }
        wanted |= {f"{name} {figure}": value for figure, (value, _) in figures.items()}
        wanted |= {f"{name} {figure} standard error": error for figure, (_, error) in figures.items()}
    for figure in ("nll", "nll per token", "nll per byte", "bits per byte"):
        wanted[f"mean {figure}"] = statistics.fmean(wanted[f"{name} {figure}"] for name in _EXAMPLES)
        errors = [wanted[f"{name} {figure} standard error"] for name in _EXAMPLES]
        wanted[f"mean {figure} standard error"] = math.sqrt(sum(error**2 for error in errors)) / 3
    wanted["mean perplexity"] = math.exp(wanted["mean nll per token"])
    wanted["mean perplexity standard error"] = wanted["mean perplexity"] * wanted["mean nll per token standard error"]
    assert found == {name: pytest.approx(value, rel=2e-4) for name, value in wanted.items()}


def test_accuracy_is_that_of_greedy_answers(
    reference: _Reference, peaked_model: Path, tmp_path: Path, lmflow_cli: Callable[..., Any]
) -> None:
    asked = [prompt for prompt, _ in _PAIRS]
    chats = [f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n" for prompt in asked]
    answers = {
        "pairs": [reference.answer(prompt, 6) for prompt in asked],
        "chats": [reference.answer(prompt, 6) for prompt in chats],
    }
    assert all(" ".join(answer.split()) for each in answers.values() for answer in each), answers
    rows: dict[str, list[dict[str, Any]]] = {
        "pairs": [{"input": asked[at], "output": answers["pairs"][at] if at else "Lyon"} for at in range(3)],
        "chats": [
            {
                "messages": [
                    {"role": "user", "content": asked[at]},
                    {"role": "assistant", "content": "Lyon" if at else f"  {answers['chats'][at]}\n"},
                ]
            }
            for at in range(3)
        ],
    }
    for name, each in rows.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(each), encoding="utf-8")
    flags = ("--dataset", tmp_path, "--dataset-name", "pairs,chats", "--metric", "accuracy", "--max-new-tokens", 6)
    found, samples = _measured(lmflow_cli, peaked_model, tmp_path, *flags)
    deviation = math.sqrt(2 / 9 / 2)
    assert found["pairs accuracy"] == pytest.approx(2 / 3)
    assert found["chats accuracy"] == pytest.approx(1 / 3)
    assert found["pairs accuracy standard error"] == pytest.approx(deviation)
    assert found["mean accuracy"] == pytest.approx(1 / 2)
    assert found["mean accuracy standard error"] == pytest.approx(deviation / math.sqrt(2))
    assert [row["found"]["text"] for row in samples] == [*answers["pairs"], *answers["chats"]]
    assert [row["scores"] for row in samples] == [{"accuracy": float(at)} for at in (0, 1, 1, 1, 0, 0)]
    assert [row["asked"] for row in samples] == [*asked, *chats]
    assert samples[0]["target"] == samples[0]["right"] == "Lyon"


def test_of_several_turns_the_last_is_answered(
    data: Path, reference: _Reference, peaked_model: Path, tmp_path: Path, lmflow_cli: Callable[..., Any]
) -> None:
    flags = ("--dataset", data / "chats", "--metric", "accuracy,nll", "--answer-type", "last_letters")
    found, samples = _measured(lmflow_cli, peaked_model, tmp_path, *flags, "--max-new-tokens", 4)
    for row, pieces in zip(samples, _EXAMPLES["chats"], strict=True):
        assert row["asked"] == "".join(text for text, _ in pieces[:3])
        assert row["target"] == pieces[3][0].removesuffix("<|im_end|>")
        assert row["found"]["text"] == reference.answer(row["asked"], 4)
        assert row["scores"].keys() == {"nll", "accuracy"}
    assert found.keys() >= {"chats accuracy", "chats without answer", "chats nll"}


def test_sampled_answers_follow_from_their_seed(
    data: Path, peaked_model: Path, tmp_path: Path, lmflow_cli: Callable[..., Any]
) -> None:
    flags = ("--dataset", data / "pairs", "--metric", "accuracy", "--max-new-tokens", 8)
    more: list[tuple[object, ...]] = [
        (),
        ("--temperature", 3, "--answer-seed", 1),
        ("--temperature", 3, "--answer-seed", 1),
        ("--temperature", 3, "--answer-seed", 2),
        ("--repetition-penalty", 9),
    ]
    texts = [
        tuple(row["found"]["text"] for row in _measured(lmflow_cli, peaked_model, tmp_path, *flags, *each)[1])
        for each in more
    ]
    assert texts[1] == texts[2]
    assert len(set(texts)) == 4


def test_a_prompt_structure_is_written_around_prompts(
    data: Path, peaked_model: Path, tmp_path: Path, lmflow_cli: Callable[..., Any]
) -> None:
    structure = "###Human: {input}###Assistant:"
    written = [{"input": structure.format(input=prompt), "output": answer} for prompt, answer in _PAIRS]
    (tmp_path / "pairs.json").write_text(json.dumps(written), encoding="utf-8")
    plain, kept = _measured(lmflow_cli, peaked_model, tmp_path, "--dataset", tmp_path / "pairs.json")
    around = ("--prompt-structure", structure)
    found, samples = _measured(lmflow_cli, peaked_model, tmp_path, "--dataset", data / "pairs", *around)
    without, _ = _measured(lmflow_cli, peaked_model, tmp_path, "--dataset", data / "pairs")
    assert (found, samples) == (plain, kept)
    assert found != without


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--benchmark lmflow measures on data: add --dataset"),
        (["--dataset", "{data}/empty.jsonl"], "empty.jsonl: the file holds no rows"),
        (["--dataset", "{data}/blank.jsonl"], "blank.jsonl"),
        (["--dataset", "{data}/texts", "--metric", "accuracy"], "texts, example 0: it has no prompt to answer"),
        (
            ["--dataset", "{data}/pairs", "--metric", "accuracy", "--answer-type", "math"],
            "pairs, example 0: its answer ' Paris, on the Seine.' is none of --answer-type math",
        ),
        (
            ["--dataset", "{data}/pairs", "--answer-type", "gsm9k", "--metric", "accuracy"],
            "--answer-type gsm9k is not known: did you mean gsm8k?",
        ),
        (["--dataset", "{data}/pairs", "--answer-type", "xyz"], "is not known: there are text, text2text, math,"),
        (["--dataset", "{data}/pairs", "--answer-type", "usmle"], "which --metric accuracy alone does"),
        (["--dataset", "{data}/pairs", "--metric", "acuracy"], "is not one of nll,"),
        (["--dataset", "{data}", "--dataset-name", "texts,wiki_eval"], "there is no wiki_en_eval, no wiki_zh_eval"),
        (["--dataset", "{data}/pairs,{data}/texts", "--dataset-weights", "1,2"], "--dataset-weights: each data set"),
        (["--dataset", "{data}/chats", "--prompt-structure", "Q: {input}"], "are those of --template"),
        (["--dataset", "{data}/pairs", "--prompt-structure", "Q: "], "must hold {input} once"),
        (["--dataset", "{data}/pairs", "--stride", "256"], "must be smaller than the model's context of 256"),
        (["--dataset", "{data}/long.jsonl"], "are longer than 256 tokens"),
        (
            ["--dataset", "{data}/long.jsonl", "--context", "64", "--metric", "accuracy"],
            "which leave no room for an answer in the context of 256",
        ),
    ],
)
def test_what_cannot_be_measured_is_told(
    flags: list[str], message: str, data: Path, peaked_model: Path, lmflow_cli: Callable[..., Any]
) -> None:
    (data / "empty.jsonl").touch()
    (data / "blank.jsonl").write_text('{"prompt": "What?", "completion": ""}\n', encoding="utf-8")
    (data / "long.jsonl").write_text(json.dumps({"prompt": "What? " * 200, "completion": "That."}), encoding="utf-8")
    given = [flag.replace("{data}", str(data)) for flag in flags]
    result = lmflow_cli("evaluate", "--benchmark", "lmflow", "--model", peaked_model, "--device", "cpu", *given)
    assert result.status == 2, result.stderr
    assert message in result.stderr
