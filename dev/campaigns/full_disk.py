"""Disks that are full, memory that is short, two runs at once, kills and a clock that is set back.

``finetune`` (full, LoRA), ``export`` (a folder, a GGUF file), ``generate --prompts`` and ``data`` are run in child
processes on a file system with room for a part of what they write (a small tmpfs; without the right to mount one, a
limit on the size of a file), and within a part of the memory they need. Each must end well or with one message, leave
nothing half-written, keep what was there before, and succeed afterwards with the result of an undisturbed run. Two runs
with one output must leave the whole result of one. Runs that are killed again and again, half of them with a clock that
runs backwards, must end with the result of a run that never was.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import resource
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from children import Ended, begin, end
from small_disk import Disk
from tally import Tally


@dataclass(frozen=True)
class Command:
    """A command line, what it writes into its folder, and the flag that lets it replace that."""

    arguments: tuple[str, ...]
    result: str | None
    replace: str = "--overwrite"


def commands(work: Path) -> dict[str, Command]:
    """Make a model, data and prompts in a folder; return the commands, by name."""
    from lmflow_core.testing.tiny import make_tiny_model

    model, data, prompts = work / "model", work / "data.jsonl", work / "prompts.txt"
    make_tiny_model(model, layers=3)
    rows = [{"input": f"say word {n}", "output": f"word {n} and the quick brown fox"} for n in range(32)]
    data.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    prompts.write_text("\n".join(f"say {n}" for n in range(12)), encoding="utf-8")
    given = ("--model", str(model), "--dataset", str(data))
    train = ("finetune", *given, "--lr", "1e-3", "--batch-size", "4", "--epochs", "2", "--save-steps", "3")
    return {
        "finetune": Command(train, "out"),
        "finetune, LoRA": Command((*train, "--tuner", "lora"), "out"),
        "export": Command(("export", "--model", str(model)), "out"),
        "export, GGUF": Command(
            ("export", "--model", str(model), "--format", "gguf", "--pre-tokenizer", "gpt-2"), "out.gguf"
        ),
        "generate": Command(
            ("generate", "--model", str(model), "--prompts", str(prompts), "--max-new-tokens", "12"), "answers.jsonl"
        ),
        "data": Command(("data", "stats", str(data), "--model", str(model)), None),
    }


def line(command: Command, place: Path, *more: str) -> list[str]:
    """Return the whole command line for a folder."""
    output = () if command.result is None else ("--output", str(place / command.result))
    return [*command.arguments, *output, *more]


def digest(path: Path) -> str | None:
    """Return a digest of a result: weights or answers, without times."""
    if path.is_file() and path.suffix == ".jsonl":
        rows = [json.loads(row) for row in path.read_text(encoding="utf-8").splitlines()]
        told = json.dumps([{name: row[name] for name in row if name != "seconds"} for row in rows])
        return hashlib.sha256(told.encode()).hexdigest()
    files = [path] if path.is_file() else sorted(path.glob("*.safetensors")) if path.is_dir() else []
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest() if files else None


def files_of(path: Path) -> dict[str, bytes]:
    """Return the files of a result, checkpoints left out."""
    if path.is_file():
        return {path.name: path.read_bytes()}
    files = (file for file in path.rglob("*") if file.is_file() and "checkpoints" not in file.parts)
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


def left_over(place: Path) -> str | None:
    """Return what is half-written in a place, if anything."""
    from lmflow_transformers.training.checkpoints import damage

    for path in place.rglob("*"):
        if ".partial" in path.name or (path.name.startswith(".") and path.name.endswith(".lock")):
            return f"{path.relative_to(place)} is left"
        if path.name.startswith("checkpoint-") and (problem := damage(path)):
            return f"{path.name} is damaged: {problem}"
    return None


class Campaign:
    """The cases, with what an undisturbed run of each command leaves."""

    def __init__(self, work: Path, disk: Disk, random_: random.Random) -> None:
        """Run every command once, undisturbed."""
        self._random, self._cache, self._log = random_, work / "cache", work / "log"
        self._commands, self.disk = commands(work), disk
        self._whole: dict[tuple[str, str], str | None] = {}
        self._needed: dict[str, int] = {}
        self._seconds: dict[str, float] = {}
        for name, command in self._commands.items():
            for seed in ("1", "2"):
                started = time.monotonic()
                ended = self._run(line(command, self.disk.place, *self._seed(name, seed)))
                if ended.status:
                    raise SystemExit(f"{name}: {ended.told}")
                self._seconds[name] = time.monotonic() - started
                self._whole[name, seed] = self._digest(command)
                self._needed[name] = max(self.disk.used(), 64 << 10)
                self.disk.clear()

    def _seed(self, name: str, seed: str) -> tuple[str, ...]:
        return ("--seed", seed) if name.startswith(("finetune", "generate")) else ()

    def _digest(self, command: Command) -> str | None:
        return None if command.result is None else digest(self.disk.place / command.result)

    def _run(
        self, arguments: list[str], prepare: Callable[[], None] = lambda: None, cache: Path | None = None
    ) -> Ended:
        return end(begin(arguments, cache or self._cache, self._log, prepare), self._log)

    def full_disk(self, name: str) -> str | None:
        """Run a command where there is too little room, then where there is enough."""
        # The cache of a command without a result is all that it writes.
        own_cache = self._commands[name].result is None or self._random.random() < 0.3
        room = int(self._needed[name] * self._random.uniform(0, 1.3))
        return self._refused(name, lambda: self.disk.limit(room), self.disk.place / "cache" if own_cache else None)

    def short_memory(self, name: str) -> str | None:
        """Run a command with little memory, then with enough."""
        more = int(2 ** self._random.uniform(20, 28.5))

        def little_memory() -> None:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            size = pages * resource.getpagesize() + more
            resource.setrlimit(resource.RLIMIT_AS, (size, size))

        return self._refused(name, lambda: little_memory, None)

    def _refused(self, name: str, limit: Callable[[], Callable[[], None]], cache: Path | None) -> str | None:
        command, place = self._commands[name], self.disk.place
        before = command.result is not None and self._random.random() < 0.5
        if before:
            self._run(line(command, place, *self._seed(name, "2")))
        kept = files_of(place / command.result) if before and command.result else {}
        replace = (command.replace,) if before else ()
        ended = self._run(line(command, place, *self._seed(name, "1"), *replace), limit(), cache)
        self.disk.widen()
        if lost := ended.lost() or left_over(place):
            return lost
        if ended.status == 0:
            return None if self._digest(command) == self._whole[name, "1"] else "the result is another"
        if name != "generate" and kept and files_of(place / str(command.result)) != kept:
            return "what was there before is not as it was"
        return self._afterwards(name, before)

    def _afterwards(self, name: str, before: bool) -> str | None:
        command, place = self._commands[name], self.disk.place
        result = place / (command.result or "nothing")
        resumable = list((result / "checkpoints").glob("checkpoint-*")) or (name == "generate" and result.is_file())
        how = (command.replace,) if before else ("--resume",) if resumable else ()
        again = self._run(line(command, place, *self._seed(name, "1"), *how))
        if again.status:
            return f"a later run fails: {again.told[-600:]}"
        return None if self._digest(command) == self._whole[name, "1"] else "the result of a later run is another"

    def two_at_once(self, name: str) -> str | None:
        """Run a command twice at once with one output."""
        command, place = self._commands[name], self.disk.place
        logs = [self._log.with_name(f"log{number}") for number in (1, 2)]
        first = begin(line(command, place, *self._seed(name, "1")), self._cache, logs[0])
        time.sleep(self._random.uniform(0, self._seconds[name]))
        second = begin(line(command, place, *self._seed(name, "2")), self._cache, logs[1])
        both = [end(process, log) for process, log in zip((first, second), logs, strict=True)]
        if lost := both[0].lost() or both[1].lost() or left_over(place):
            return lost
        worked = [seed for seed, ended in zip("12", both, strict=True) if ended.status == 0]
        if len(worked) != 1:
            return f"{len(worked)} of two worked"
        return None if self._digest(command) == self._whole[name, worked[0]] else "the result is mixed"

    def kill(self, name: str, *, clock_back: bool) -> str | None:
        """Kill a command again and again until it gets through, going on each time."""
        command, place = self._commands[name], self.disk.place
        result = place / str(command.result)
        for _ in range(200):
            begun = list((result / "checkpoints").glob("checkpoint-*")) or (name == "generate" and result.is_file())
            arguments = line(command, place, *self._seed(name, "1"), *(("--resume",) if begun else ()))
            process = begin(arguments, self._cache, self._log, _clock_backwards if clock_back else lambda: None)
            ended = end(process, self._log, self._random.uniform(0.3, 1.2) * self._seconds[name])
            if ended.status == 0:
                return None if self._digest(command) == self._whole[name, "1"] else "the result is another"
            if lost := None if ended.status == -signal.SIGKILL else ended.lost() or ended.told:
                return lost
        return "it never got through"


def _clock_backwards() -> None:
    began, started = time.time(), time.monotonic()
    time.time = lambda: began - 3600 * (time.monotonic() - started)


def main() -> None:
    """Try cases of each kind in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", action="append", metavar="KIND", help="try this kind only; may be repeated")
    arguments = parser.parse_args()
    random_ = random.Random(arguments.seed)
    import matplotlib.figure  # noqa: F401
    import peft  # noqa: F401
    import transformers.trainer  # noqa: F401

    import lmflow_gguf.export
    import lmflow_lora.tuner

    assert lmflow_gguf.export
    assert lmflow_lora.tuner
    tally = Tally()
    with tempfile.TemporaryDirectory() as folder, Disk(Path(folder) / "disk") as disk:
        campaign = Campaign(Path(folder), disk, random_)
        every = ("finetune", "finetune, LoRA", "export", "export, GGUF", "generate", "data")
        writing = every[:-1]
        longer = ("finetune", "finetune, LoRA", "generate")
        kinds: list[tuple[str, tuple[str, ...], Callable[[str], str | None]]] = [
            ("disk full", every, campaign.full_disk),
            ("memory short", every, campaign.short_memory),
            ("two at once", writing, campaign.two_at_once),
            ("killed", longer, lambda name: campaign.kill(name, clock_back=False)),
            ("killed, clock set back", longer, lambda name: campaign.kill(name, clock_back=True)),
        ]
        weights = (10, 6, 3, 2, 2)
        if arguments.kind:
            weights = tuple(
                weight if kind[0] in arguments.kind else 0 for kind, weight in zip(kinds, weights, strict=True)
            )
        for _ in range(arguments.cases):
            ((kind, names, attempt),) = random_.choices(kinds, weights)
            name = random_.choice(names)
            disk.clear()
            tally.add(f"{kind}: {name}", attempt(name))
    tally.finish()


if __name__ == "__main__":
    main()
