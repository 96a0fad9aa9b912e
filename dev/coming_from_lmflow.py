"""Writes the page for users of the original LMFlow: each of its documented flags, tried through the parser.

``python dev/coming_from_lmflow.py`` writes it; with ``--check`` it tells whether the page is up to date. The flags are
those of the original's scripts and argument classes, kept in ``lmflow_scripts.json``.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import itertools
import json
import operator
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lmflow_core.cli.flags import FlagParser
from lmflow_core.config.request import resolve
from lmflow_core.config.schema import CHAT, EVALUATE, EXPORT, FINETUNE, GENERATE, Schema
from lmflow_core.errors import LmflowError, UnknownNameError
from lmflow_core.plugins.registry import Catalogue

_ROOT = Path(__file__).parents[1]
PAGE = _ROOT / "docs" / "coming-from-lmflow.md"
SCHEMAS: dict[str, Schema] = {
    **{schema.name: schema for schema in (FINETUNE, EVALUATE, GENERATE, CHAT)},
    "merge": dataclasses.replace(EXPORT, name="merge"),
    "webui": dataclasses.replace(CHAT, name="webui"),
}
# What a command needs in any case; the original's flags come before it and count.
_NEEDED = {
    "finetune": {"model": "MODEL", "dataset": "DATA", "output": "OUT"},
    "evaluate": {"model": "MODEL", "dataset": "DATA"},
    "generate": {"model": "MODEL", "prompts": "FILE", "output": "FILE"},
    "chat": {"model": "MODEL"},
    "merge": {"model": "MODEL", "output": "OUT"},
    "webui": {"model": "MODEL"},
}
_INTRODUCTION = """# Coming from LMFlow

The scripts of the original LMFlow become commands: `scripts/run_finetune.sh` is `lmflow finetune`, and the flags that
were behind `examples/finetune.py` come behind it. This page is written by `dev/coming_from_lmflow.py`, which tries each
flag through the parser of the command; a test fails when it is out of date.

Where a launcher stood (`deepspeed`, `accelerate launch`), `lmflow finetune` stands now: it starts a process for each
GPU when it is given `--nproc gpu` or one of the launcher's own flags, such as `--master_port` or `--hostfile`. Data is
read as it was, a folder of JSON files or one of them. `-m`, `-d`, `-o` and `-r` are understood as in the scripts. A
flag that is not available is refused before any work, with the sentence below."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of some flags: ``works``, and in words what they are here or why they are refused."""

    works: bool
    words: str


def tried(command: str, arguments: Sequence[str], catalogue: Catalogue) -> Outcome:
    """Parse and resolve some flags behind a command, with what it needs besides."""
    schema = SCHEMAS[command]
    notes = io.StringIO()
    try:
        with contextlib.redirect_stderr(notes):
            values = FlagParser(schema, catalogue).parse(arguments).values
            resolve(schema, {**_NEEDED[command], **values}, catalogue)
    except UnknownNameError as error:
        return Outcome(False, f"not available yet: {str(error).partition('. ')[0].removesuffix('.')}")
    except LmflowError as error:
        return _with_what_it_belongs_to(command, arguments, catalogue, _without_flag(str(error), arguments))
    here = " ".join(_flag(name, value) for name, value in values.items())
    told = " ".join(line.partition("has no effect here: ")[2] for line in notes.getvalue().splitlines())
    return Outcome(True, f"`{here}`" if here else f"no effect: {told}" if told else "is so in any case")


def _with_what_it_belongs_to(command: str, arguments: Sequence[str], catalogue: Catalogue, problem: str) -> Outcome:
    belongs = re.search(r"belongs to .*: add (--\S+ \S+)", problem)
    if belongs is None:
        return Outcome(False, problem)
    outcome = tried(command, [*arguments, *belongs[1].split()], catalogue)
    return outcome if outcome.works else Outcome(False, problem)


def _without_flag(problem: str, arguments: Sequence[str]) -> str:
    """Return a refusal without the flag it begins with, which stands before it in the table."""
    for said in (" ".join(arguments), *arguments[:1]):
        problem = problem.removeprefix(f"{said} ")
    return problem


def _flag(name: str, value: object) -> str:
    flag = "--" + name.replace("_", "-")
    return flag if value is True or str(value).lower() == "true" else shlex.join((flag, str(value)))


def script_outcome(script: dict[str, Any], catalogue: Catalogue) -> Outcome:
    """Try the whole line of a script; flags that are refused are left out, unless the script is about them."""
    needs = script["needs"].split()
    flags = list(_flags_of(script["line"]))
    missing = tried(script["command"], needs, catalogue)
    if not missing.works:
        return missing
    outcomes = {flag: tried(script["command"], [*needs, *flag], catalogue) for flag in flags}
    refused = [flag for flag, outcome in outcomes.items() if not outcome.works]
    for flag in refused:
        if flag[0] in script["about"]:
            return Outcome(False, f"`{' '.join(flag)}` {outcomes[flag].words}")
    kept = [word for flag in flags if flag not in refused for word in flag]
    whole = tried(script["command"], [*needs, *kept], catalogue)
    if not whole.works:
        return whole
    names = ", ".join(f"`{flag[0]}`" for flag in refused)
    return Outcome(True, f"works without {names}" if names else "works")


def _flags_of(line: str) -> Iterator[tuple[str, ...]]:
    flag: list[str] = []
    for word in shlex.split(line):
        if word.startswith("--") and flag:
            yield tuple(flag)
            flag = []
        flag.append(word)
    yield tuple(flag)


def page(catalogue: Catalogue) -> str:
    """Return the page."""
    known = json.loads(Path(__file__).with_name("lmflow_scripts.json").read_text(encoding="utf-8"))
    lines = [_INTRODUCTION, "", "## Scripts", "", "| script | here | |", "|---|---|---|"]
    for script in known["scripts"]:
        outcome = script_outcome(script, catalogue)
        here = " ".join(("lmflow", script["command"], *script["needs"].split()))
        words = outcome.words if outcome.works else "; ".join(filter(None, (outcome.words, script["instead"])))
        lines.append(f"| `{script['script']}` | `{here}` | {words} |")
    for command, line in known["flags"].items():
        lines += ["", f"## Flags behind `lmflow {command}`", "", "| flag of the original | here |", "|---|---|"]
        outcomes = [(flag, tried(command, flag, catalogue).words) for flag in _flags_of(line)]
        for words, alike in itertools.groupby(outcomes, key=operator.itemgetter(1)):
            flags = ", ".join(f"`{' '.join(flag)}`" for flag, _ in alike)
            lines.append(f"| {flags} | {_cell(words)} |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> None:
    """Write the page, or check it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    checking = parser.parse_args().check
    text = page(Catalogue.discover())
    if not checking:
        PAGE.write_text(text, encoding="utf-8")
    elif not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != text:
        sys.exit(f"{PAGE} is out of date: run python {Path(__file__).relative_to(_ROOT)}")


if __name__ == "__main__":
    main()
