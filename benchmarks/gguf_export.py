"""Speed and memory of GGUF export, beside llama.cpp's own converter on the same folder, and whether the files agree.

    python benchmarks/gguf_export.py MODEL_FOLDER --llama-cpp SOURCES [--type f16] [--repeat 3]

Each run is a process of its own; the best time of the repetitions is taken, the largest peak. ``SOURCES`` is the
source of llama.cpp, which comes with the source distribution of llama-cpp-python.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from hashlib import sha256
from pathlib import Path

from gguf import GGUFReader


def measured(command: list[str], output: Path) -> tuple[float, int]:
    """Run a command; return its seconds and the largest resident set of its process, in bytes."""
    output.unlink(missing_ok=True)
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status != 0 or not output.is_file():
        raise SystemExit(f"failed: {' '.join(command)}")
    return seconds, usage.ru_maxrss * 1024


def agreement(ours: Path, theirs: Path) -> dict[str, object]:
    """Return how many tensors and keys of two files are the same, and the names of those that are not."""
    found = [_described(file) for file in (ours, theirs)]
    names = sorted(set(found[0]) | set(found[1]))
    differing = [name for name in names if found[0].get(name) != found[1].get(name)]
    return {"same": len(names) - len(differing), "differing": differing}


def _described(file: Path) -> dict[str, tuple[object, ...]]:
    """Return each tensor's type, shape and digest, and each key's types and value."""
    reader = GGUFReader(file)
    tensors: dict[str, tuple[object, ...]] = {
        f"tensor {tensor.name}": (tensor.tensor_type, tuple(tensor.shape), sha256(tensor.data.tobytes()).hexdigest())
        for tensor in reader.tensors
    }
    keys = {f"key {name}": (tuple(field.types), field.contents()) for name, field in reader.fields.items()}
    return tensors | keys


def main() -> None:
    """Measure both and print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of a model")
    parser.add_argument("--llama-cpp", type=Path, help="llama.cpp's sources; left out, ours alone is measured")
    parser.add_argument("--type", default="f16", choices=["f32", "f16", "bf16", "q8_0"])
    parser.add_argument("--repeat", type=int, default=3)
    arguments = parser.parse_args()
    model = str(arguments.model.expanduser())
    with tempfile.TemporaryDirectory() as scratch:
        ours, theirs = Path(scratch) / "ours.gguf", Path(scratch) / "theirs.gguf"
        files = {"lmflow": ours}
        export = ["export", "--model", model, "--format", "gguf", "--type", arguments.type, "--output", str(ours)]
        commands = {"lmflow": [sys.executable, "-m", "lmflow_core", *export]}
        if arguments.llama_cpp:
            files["llama.cpp"] = theirs
            converter = str(arguments.llama_cpp / "convert_hf_to_gguf.py")
            commands["llama.cpp"] = [
                sys.executable,
                converter,
                model,
                "--outtype",
                arguments.type,
                "--outfile",
                str(theirs),
            ]
        runs: dict[str, list[tuple[float, int]]] = {name: [] for name in commands}
        for _ in range(arguments.repeat):
            for name, command in commands.items():
                runs[name].append(measured(command, files[name]))
        result: dict[str, object] = {"type": arguments.type, "bytes": ours.stat().st_size}
        if arguments.llama_cpp:
            result["agreement"] = agreement(ours, theirs)
    for name, found in runs.items():
        result[name] = {"seconds": round(min(run[0] for run in found), 2), "peak_bytes": max(run[1] for run in found)}
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
