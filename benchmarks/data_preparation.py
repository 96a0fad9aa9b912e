"""Speed and memory of preparing data: rows rendered, tokenised and packed per second, against the tokenizer alone.

    python benchmarks/data_preparation.py --data ROWS.json

The rows are repeated, each made different, to 20,000 and to 200,000. Each measurement is a process of its own. The
tokenizer alone is ``tokenizers.encode_batch`` over the rendered texts of the same rows, held in memory.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

MODEL, TEMPLATE, LENGTH, PACK = "smollm2-135m-instruct", "smollm2", 512, 2048
FEW, MANY = 20_000, 200_000


def main() -> None:
    """Run every measurement and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="alpaca rows: a JSON list")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--measure", choices=("speed", "memory"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if arguments.measure:
        print(json.dumps(_speed(arguments.data) if arguments.measure == "speed" else _memory(arguments.data)))
        return
    with tempfile.TemporaryDirectory() as folder:
        few, many = (_repeated(arguments.data, count, Path(folder)) for count in (FEW, MANY))
        results = {
            **_apart("speed", few),
            "peak_bytes_few": _apart("memory", few)["peak_bytes"],
            "peak_bytes_many": _apart("memory", many)["peak_bytes"],
        }
    print(json.dumps(results, indent=2) if arguments.json else _table(results))


def _repeated(data: Path, count: int, folder: Path) -> Path:
    rows = json.loads(data.read_text(encoding="utf-8"))
    file = folder / f"rows{count}.jsonl"
    with file.open("w", encoding="utf-8") as stream:
        for number, row in enumerate(itertools.islice(itertools.cycle(rows), count)):
            stream.write(json.dumps({**row, "instruction": f"{row['instruction']} ({number})"}) + "\n")
    return file


def _apart(measure: str, rows: Path) -> dict[str, Any]:
    print(f"measuring {measure} of {rows.name}", file=sys.stderr, flush=True)
    command = [sys.executable, __file__, "--data", str(rows), "--measure", measure]
    finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return result


def _maker(rows: Path) -> Any:
    from lmflow_core.api import ModelSettings
    from lmflow_core.contracts.settings import DataSettings
    from lmflow_core.data.dataset import DatasetMaker
    from lmflow_core.models.opening import open_model
    from lmflow_core.plugins.registry import Catalogue

    catalogue = Catalogue.discover()
    settings = DataSettings(
        dataset=(rows,), template=TEMPLATE, max_length=LENGTH, length_policy="truncate", cache=False
    )
    return DatasetMaker(settings, open_model(ModelSettings(model=MODEL), catalogue), catalogue)


def _speed(rows: Path) -> dict[str, Any]:
    """Measure both in turn, three times, and keep the best of each."""
    maker = _maker(rows)
    texts = _texts(maker, rows)
    ours = alone = float("inf")
    for _ in range(3):
        alone = min(alone, _timed(lambda: _tokenise(texts)))
        ours = min(ours, _timed(lambda: _prepared_and_packed(maker)))
    return {"rows_per_second": len(texts) / ours, "tokenizer_rows_per_second": len(texts) / alone}


def _texts(maker: Any, rows: Path) -> list[str]:
    from lmflow_core.data.examples import ExampleReader
    from lmflow_core.plugins.registry import Catalogue

    template = maker.template
    found = ExampleReader(Catalogue.discover()).read([rows])
    return ["".join(s.text for s in template.render(located.example.messages, False)) for located in found]


def _tokenise(texts: list[str]) -> None:
    from tokenizers import Tokenizer

    from lmflow_smollm2.loader import cached_folder

    tokenizer = Tokenizer.from_file(str(cached_folder() / "tokenizer.json"))
    for start in range(0, len(texts), 1000):
        tokenizer.encode_batch(texts[start : start + 1000], add_special_tokens=False)


def _prepared_and_packed(maker: Any) -> None:
    from lmflow_transformers.packing import best_fit

    best_fit(maker.make().rows.lengths(), PACK, 0)


def _timed(work: Any) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _memory(rows: Path) -> dict[str, Any]:
    _maker(rows).make()
    return {"peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def _table(results: dict[str, Any]) -> str:
    share = results["rows_per_second"] / results["tokenizer_rows_per_second"]
    growth = results["peak_bytes_many"] / results["peak_bytes_few"]
    return "\n".join(
        [
            f"rendered, tokenised and packed  {results['rows_per_second']:8.0f} rows/s",
            f"the tokenizer alone             {results['tokenizer_rows_per_second']:8.0f} rows/s  ({share:.0%})",
            f"peak memory, {FEW:,} rows       {results['peak_bytes_few'] / 1e6:8.0f} MB",
            f"peak memory, {MANY:,} rows      {results['peak_bytes_many'] / 1e6:8.0f} MB  ({growth:.2f} times)",
        ]
    )


if __name__ == "__main__":
    main()
