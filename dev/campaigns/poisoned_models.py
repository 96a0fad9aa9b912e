"""Model folders and adapters that lie, lead out, hold code or ask for absurd sizes: one message each, or the work done.

Every poison is given to ``generate`` and, in turn, to another command. A case is lost when there is a traceback or more
than one message, when code of the folder runs, memory explodes, a command hangs or dies, or leaves half of an output.
"""

from __future__ import annotations

import os
import resource
import shutil
import sys
import tempfile
import traceback
from pathlib import Path

from poisons import ADAPTERS, CANARY, GGUF, MODELS, lying
from tally import Tally, campaign_arguments
from workers import Worker

from lmflow_core.cli.main import run
from lmflow_core.testing.tiny import make_tiny_model

_MOST_MEMORY = 3 << 30
_SECONDS = 60.0
_COMMANDS = ("finetune", "export", "gguf", "chat", "merge", "preview")
# Messages about the request or the form of the whole, which name no file because there is none to mend.
_OF_NO_FILE = (
    "the model's own template",
    "no adapter to merge",
    "cannot be written as GGUF",
    "the model places for",
    "llama.cpp would",
)


class Cases:
    """Poisons a copy of a tiny model and runs a command on it, in the worker."""

    def __init__(self) -> None:
        self._kept = tempfile.TemporaryDirectory(prefix="lmflow-poisoned-")
        self._root = Path(self._kept.name)
        os.environ["HF_HUB_OFFLINE"] = "1"
        os.environ["LMFLOW_CACHE"] = str(self._root / "cache")
        os.environ[CANARY] = str(self._root / "canary")
        self._model = make_tiny_model(self._root / "whole")
        self._data = self._root / "rows.jsonl"
        self._data.write_text('{"instruction": "say", "output": "hi"}\n' * 4)
        exported = str(self._root / "exported")
        self._run([*self._arguments("gguf", self._model, Path(exported)), "--type", "f32"])
        self._gguf = next(Path(exported).glob("*.gguf"))
        flags = ("--max-steps", "1", "--tuner", "lora", "--output", str(self._root / "adapter"))
        self._run(["finetune", "--model", str(self._model), "--dataset", str(self._data), *flags])

    def __call__(self, case: tuple[str, str]) -> str | None:
        """Run one case; return what was lost, if something was."""
        name, command = case
        output = self._root / "output"
        shutil.rmtree(output, ignore_errors=True)
        status, said = self._run(self._arguments(command, self._poisoned(name), output))
        problem = self._problem(status, said, output)
        return problem and f"{name}, {command}: {problem}"

    def _poisoned(self, name: str) -> Path:
        if name in GGUF:
            file = self._root / "poisoned.gguf"
            file.write_bytes(lying(self._gguf.read_bytes(), name))
            return file
        folder = self._root / "poisoned"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self._root / ("adapter" if name in ADAPTERS else "whole"), folder)
        {**MODELS, **ADAPTERS}[name](folder)
        return folder

    def _arguments(self, command: str, model: Path, output: Path) -> list[str]:
        given = ["--model", str(model)]
        data = ["--dataset", str(self._data)]
        return {
            "generate": ["generate", *given, "--prompt", "hi", "--max-new-tokens", "3"],
            "chat": ["chat", *given, "--max-new-tokens", "3"],
            "finetune": ["finetune", *given, *data, "--max-steps", "1", "--tuner", "lora", "--output", str(output)],
            "export": ["export", *given, "--output", str(output)],
            "gguf": ["export", "--format", "gguf", *given, "--output", str(output), "--pre-tokenizer", "gpt-2"],
            "merge": ["merge", *given, "--output", str(output)],
            "preview": ["data", "preview", str(self._data), *given],
        }[command]

    def _run(self, arguments: list[str]) -> tuple[int | None, str]:
        """Run a command line; return its status, None for a traceback, and what stands on stderr."""
        with tempfile.TemporaryFile("w+") as errors, Path(os.devnull).open("r+") as nothing:
            kept = os.dup(1), os.dup(2), os.dup(0)
            os.dup2(nothing.fileno(), 1), os.dup2(errors.fileno(), 2), os.dup2(nothing.fileno(), 0)
            try:
                status: int | None = run(arguments)
            except BaseException:
                status = None
                traceback.print_exc()
            finally:
                sys.stdout.flush(), sys.stderr.flush()
                for at, descriptor in zip((1, 2, 0), kept, strict=True):
                    os.dup2(descriptor, at)
                    os.close(descriptor)
            errors.seek(0)
            return status, errors.read()

    def _problem(self, status: int | None, said: str, output: Path) -> str | None:
        if (self._root / "canary").exists():
            (self._root / "canary").unlink()
            return "code of the folder ran"
        if status is None:
            return "a traceback: " + " ".join(said.split())[-300:]
        if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 > _MOST_MEMORY:
            return "memory exploded"
        if status == 0:
            return None
        lines = [line for line in said.splitlines() if line.startswith("lmflow: error: ")]
        if len(lines) != 1 or "Traceback" in said or "panicked" in said:
            return f"no single message: {said!r:.400}"
        if output.exists():
            return "an output was left"
        names_it = any(part in lines[0] for part in (str(self._root), *_OF_NO_FILE))
        return None if names_it else f"the message names no file: {lines[0]:.300}"


def main() -> None:
    """Run the campaign."""
    cases, generator = campaign_arguments(__doc__, 2 * (len(MODELS) + len(ADAPTERS) + len(GGUF)))
    tally = Tally()
    worker = Worker(Cases, _SECONDS)
    names = [*MODELS, *ADAPTERS, *GGUF]
    if cases < len(names):
        names = generator.sample(names, cases)
    for number in range(cases):
        name = names[number % len(names)]
        turn = number // len(names)
        command = "generate" if not turn or name in GGUF else _COMMANDS[(number + turn) % len(_COMMANDS)]
        tally.add("adapter" if name in ADAPTERS else name.split()[0], worker.outcome((name, command)))
    worker.end()
    tally.finish()


if __name__ == "__main__":
    main()
