"""Records what llama.cpp's own converter makes of the small models: a digest per tensor, and the metadata.

    pip download --no-deps --no-binary :all: llama-cpp-python==0.3.36 && tar xf llama_cpp_python-0.3.36.tar.gz
    python dev/gguf_oracle.py llama_cpp_python-0.3.36/vendor/llama.cpp

The record is ``plugins/lmflow-gguf/tests/data/oracle.json``; the tests compare our files with
it, so that they need no converter. ``oracle-scaled.json`` beside it is of models that were saved with scaled positions,
``oracle-extended.json`` of those whose vocabulary was extended, ``oracle-seeing.json`` of models that see, each with
its text and its eyes (``mmproj``).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lmflow_core.cli.main import run as lmflow

_TESTS = Path(__file__).parents[1] / "plugins" / "lmflow-gguf" / "tests"
RECORD = _TESTS / "data" / "oracle.json"
SCALED = _TESTS / "data" / "oracle-scaled.json"
EXTENDED = _TESTS / "data" / "oracle-extended.json"
SEEING = _TESTS / "data" / "oracle-seeing.json"
RECORDS = ("plain", "scaled", "extended", "seeing")
TYPES = ("f32", "f16", "bf16", "q8_0")
# The converter runs as it is, but for the table of pre-tokenizers, which does not know the small tokenizer. Each
# further argument is the list of one run's, in JSON.
_DRIVER = """
import json, runpy, sys
root, pre, *runs = sys.argv[1:]
sys.path.insert(0, root)
from conversion.base import TextModel
TextModel.get_vocab_base_pre = lambda self, tokenizer: pre
for run in runs:
    sys.argv = ["convert_hf_to_gguf.py", *json.loads(run)]
    runpy.run_path(root + "/convert_hf_to_gguf.py", run_name="__main__")
"""


def _shared() -> Any:
    """Return the module with the small models, which belongs to the tests."""
    spec = importlib.util.spec_from_file_location("gguf_conftest", _TESTS / "conftest.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SHARED = _shared()


def run_converter(llama_cpp: Path, folder: Path, file: Path, type_name: str) -> None:
    """Run llama.cpp's converter on a folder."""
    _run_converter(llama_cpp, [[str(folder), "--outtype", type_name, "--outfile", str(file)]])


def _run_converter(llama_cpp: Path, runs: Sequence[Sequence[str]]) -> None:
    arguments = [str(llama_cpp), SHARED.PRE_TOKENIZER, *map(json.dumps, runs)]
    subprocess.run([sys.executable, "-c", _DRIVER, *arguments], check=True, capture_output=True, text=True)


def main() -> None:
    """Convert every small model and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("llama_cpp", type=Path, help="folder of llama.cpp's sources")
    parser.add_argument("--records", nargs="*", default=RECORDS, choices=RECORDS, help="these records alone")
    parser.add_argument(
        "--only", nargs="*", default=list(SHARED.MODELS), help="these models alone; the others stay recorded"
    )
    arguments = parser.parse_args()
    makers = {
        "plain": (RECORD, lambda: _plain(arguments.llama_cpp, arguments.only)),
        "scaled": (SCALED, lambda: _scaled(arguments.llama_cpp)),
        "extended": (EXTENDED, lambda: _extended(arguments.llama_cpp)),
        "seeing": (SEEING, lambda: _seeing(arguments.llama_cpp)),
    }
    for name in arguments.records:
        file, made = makers[name]
        _write(file, made())


def _plain(llama_cpp: Path, names: Sequence[str]) -> dict[str, Any]:
    record = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.is_file() else {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in names:
            folder = SHARED.make_model(name, Path(scratch) / name)
            if name == "gpt2":
                _as_it_was_published(folder)
            for type_name in TYPES:
                file = Path(scratch) / f"{name}.gguf"
                run_converter(llama_cpp, folder, file, type_name)
                record.setdefault(name, {})[type_name] = SHARED.described(file)
            print(name, flush=True)
    return record


def _scaled(llama_cpp: Path) -> dict[str, Any]:
    """Return the record of models that ``lmflow export`` saved with scaled positions."""
    record: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, schemes in SHARED.SCALED.items():
            plain = SHARED.make_model(name, Path(scratch) / name, sharpness=SHARED.SHARPNESS)
            for scheme in schemes:
                saved, file = Path(scratch) / f"{name}-{scheme}", Path(scratch) / f"{name}-{scheme}.gguf"
                flags = ["--model", str(plain), *SHARED.scaling_flags(scheme), "--output", str(saved)]
                if lmflow(["export", *flags]):
                    raise SystemExit(f"{name} cannot be saved with {scheme}")
                if (plain / "tokenizer.model").is_file():  # saving does not write it, and the converter asks for it
                    shutil.copyfile(plain / "tokenizer.model", saved / "tokenizer.model")
                run_converter(llama_cpp, saved, file, "f32")
                record.setdefault(name, {})[scheme] = SHARED.described(file)
    return record


def _extended(llama_cpp: Path) -> dict[str, Any]:
    """Return the record of models that ``lmflow vocab extend`` gave more tokens."""
    record: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in SHARED.EXTENDED:
            plain = SHARED.make_model(name, Path(scratch) / name)
            grown, file = Path(scratch) / f"{name}-extended", Path(scratch) / f"{name}-extended.gguf"
            flags = ["--model", str(plain), *SHARED.extension_flags(Path(scratch)), "--output", str(grown)]
            if lmflow(["vocab", "extend", *flags]):
                raise SystemExit(f"{name} cannot be extended")
            run_converter(llama_cpp, grown, file, "f32")
            record[name] = SHARED.described(file)
    return record


def _seeing(llama_cpp: Path) -> dict[str, Any]:
    """Return the record of models that see."""
    with tempfile.TemporaryDirectory() as scratch:
        files, runs = {}, []
        for family in SHARED.SEEING:
            folder = SHARED.make_seeing(family, Path(scratch) / family)
            for part, flags in (("text", []), ("eyes", ["--mmproj"])):
                for type_name in TYPES:
                    file = files[family, part, type_name] = Path(scratch) / f"{family}-{part}-{type_name}.gguf"
                    runs.append([str(folder), *flags, "--outtype", type_name, "--outfile", str(file)])
        _run_converter(llama_cpp, runs)
        record: dict[str, Any] = {}
        for (family, part, type_name), file in files.items():
            record.setdefault(family, {}).setdefault(part, {})[type_name] = SHARED.described(file)
    return record


def _write(file: Path, record: dict[str, Any]) -> None:
    file.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _as_it_was_published(folder: Path) -> None:
    """Give a GPT-2 the key ``n_ctx`` that the converter reads and today's transformers no longer writes."""
    file = folder / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**config, "n_ctx": config["n_positions"]}), encoding="utf-8")


if __name__ == "__main__":
    main()
