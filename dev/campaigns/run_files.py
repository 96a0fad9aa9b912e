"""Hostile run files: each is taken as it was meant or ends with one short message.

Valid run files, YAML and ``run.json``, are mutated (bytes, lines, values, structure), and known attacks are written
out: bombs of aliases, tags that call code, deep nesting, doubled keys, other encodings, numbers and names without end.
Each goes through the reader, the flags of ``lmflow finetune`` and the check of every option.
"""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from tally import Tally, campaign_arguments

from lmflow_core.cli.flags import FlagParser, with_run_file
from lmflow_core.config.request import resolve
from lmflow_core.config.schema import FINETUNE
from lmflow_core.errors import LmflowError
from lmflow_core.plugins.registry import Catalogue

_LONGEST_MESSAGE = 2000
_RUN: dict[str, Any] = {
    "model": "smollm2-135m-instruct",
    "dataset": ["a.jsonl", "b.jsonl"],
    "output": "runs/out",
    "tuner": "lora",
    "lora_r": 16,
    "lora_dropout": 0.0,
    "epochs": 2,
    "lr": 1e-3,
    "template": None,
    "overwrite": True,
    "report_to": [],
}
_VALUES = (
    *("", "[]", "{}", "~", "yes", "1e999", "-1", "0x1f", "1:30:00", ".nan", "2024-99-99", '"\\0"', '"\\ud800"', "'"),
    *("[[[[1]]]]", "{a: {b: c}}", "9" * 5000, "x" * 100_000, "*a", "&a b", "!!python/name:os.system", "!!binary aGk="),
    *("!!set {a, b}", "- 1", "? a", "|\n  text", ">\n  text", "\t", "# comment", "@", "`", "%TAG", "---", "..."),
    *("[1, {2: 3}]", "none", "true", "1.0", "'1'", "💥"),
)


def _bomb(levels: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join([*lines, f"model: *a{levels - 1}"])


ATTACKS: dict[str, bytes] = {
    "bomb": _bomb(12).encode(),
    "bomb of strings": ("a: &a " + "x" * 1000 + "\ndataset: [" + ", ".join(["*a"] * 1000) + "]").encode(),
    "merge keys": b"a: &a {model: m}\n<<: *a\n",
    "itself": b"&a [*a]",
    "code": b"!!python/object/apply:os.system ['echo harmed']",
    "code in a value": b"model: !!python/object/apply:os.system ['echo harmed']",
    "deep lists": b"dataset: " + b"[" * 100_000,
    "deep mappings": b"{a: " * 20_000,
    "deep JSON": b'{"a":' * 100_000,
    "deep blocks": b"".join(b" " * n + b"a:\n" for n in range(2000)),
    "twice": b"model: a\nmodel: b\n",
    "twice, with a dash": b"max-steps: 1\nmax_steps: 2\n",
    "twice in JSON": b'{"model": "a", "model": "b"}',
    "UTF-16": "model: m".encode("utf-16"),
    "UTF-32": "model: m".encode("utf-32"),
    "Latin-1": "model: mö".encode("latin-1"),
    "zeros": b"\0" * 1000,
    "nothing": b"",
    "two documents": b"model: a\n---\nmodel: b\n",
    "a scalar": b"model",
    "a list": b"- model\n- output\n",
    "keys of other kinds": b"1: a\ntrue: b\nnull: c\n2024-01-01: d\n",
    "keys that are lists": b"? [a, b]\n: c\n",
    "a long name": b"m" * 1_000_000 + b": 1\n",
    "a long value": b"model: " + b"m" * 1_000_000 + b"\nlr: " + b"m" * 1_000_000,
    "many keys": b"".join(f"key{n}: 1\n".encode() for n in range(20_000)),
    "too large": b"# " + b"x" * (65 << 20),
    "options that are none": b"options: [1]\nmodel: m\n",
    "options within": json.dumps({"options": {"options": {"model": "m"}}}).encode(),
}  # fmt: skip


def problem_with(file: Path, parser: FlagParser, catalogue: Catalogue) -> str | None:
    """Return what is lost when a run file is used: None where it works or ends with one message."""
    try:
        values = with_run_file(parser.parse([str(file)]), parser)
        resolved = resolve(FINETUNE, values, catalogue, f"{file}: ").values()
    except LmflowError as error:
        message = str(error)
        return None if 0 < len(message) < _LONGEST_MESSAGE else f"a message of {len(message)} characters"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    meant = _meant(file.read_text(encoding="utf-8-sig"))
    meant = meant["options"] if isinstance(meant.get("options"), dict) else meant
    lost = {parser.canonical(str(key).replace("-", "_"), "") for key in meant} - set(resolved)
    return f"options without a word left out: {lost}" if lost else None


def _meant(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return yaml.safe_load(text)


def mutated(text: str, random_: random.Random) -> tuple[str, bytes]:
    """Return a mutation of a run file and its kind."""
    kind = random_.choice(("bytes", "lines", "values", "structure"))
    return kind, _MUTATIONS[kind](text, random_)


def _bytes(text: str, random_: random.Random) -> bytes:
    content = bytearray(text.encode())
    for _ in range(random_.randint(1, 8)):
        at = random_.randrange(len(content))
        choice = random_.random()
        if choice < 0.5:
            content[at] = random_.randrange(256)
        elif choice < 0.75:
            content[at:at] = bytes(random_.choices(b"[]{}:-#&*!|>'\"%@`\t\n ,?\\", k=random_.randint(1, 4)))
        else:
            del content[at : at + random_.randint(1, 10)]
    return bytes(content)


def _lines(text: str, random_: random.Random) -> bytes:
    lines = text.splitlines()
    for _ in range(random_.randint(1, 3)):
        at = random_.randrange(len(lines))
        change = random_.choice(("twice", "away", "moved", "indented", "commented"))
        line = lines.pop(at)
        kept = {"twice": [line, line], "away": [], "moved": [], "indented": ["  " + line], "commented": ["# " + line]}
        lines[at:at] = kept[change]
        if change == "moved":
            lines.insert(random_.randrange(len(lines) + 1), line)
        if not lines:
            break
    return "\n".join(lines).encode()


def _values(text: str, random_: random.Random) -> bytes:
    run = dict(_RUN)
    chosen = random_.sample(sorted(run), random_.randint(1, 3))
    lines = [
        f"{name}: {random_.choice(_VALUES) if name in chosen else json.dumps(value)}" for name, value in run.items()
    ]
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def _structure(text: str, random_: random.Random) -> bytes:
    run: Any = {name: _odd(random_) if random_.random() < 0.2 else value for name, value in _RUN.items()}
    for _ in range(random_.randint(0, 3)):
        run = random_.choice(({"options": run}, [run], {"model": run}, {"options": run, "more": 1}))
    return (json.dumps(run) if random_.random() < 0.5 else yaml.safe_dump(run, allow_unicode=True)).encode()


def _odd(random_: random.Random) -> Any:
    return random_.choice((None, True, -1, 1e300, 10**30, "", "x" * 500, [], [[]], {}, {"a": [1]}, ["a", None], [True]))


_MUTATIONS: dict[str, Callable[[str, random.Random], bytes]] = {
    "bytes": _bytes,
    "lines": _lines,
    "values": _values,
    "structure": _structure,
}


def main() -> None:
    """Try the attacks, then the mutations."""
    cases, random_ = campaign_arguments(__doc__, 5000)
    tally, catalogue = Tally(), Catalogue.discover()
    parser = FlagParser(FINETUNE, catalogue)
    texts = (yaml.safe_dump(_RUN), json.dumps({"schema": 1, "options": _RUN, "losses": [[1, 2.0]]}, indent=2))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "run.yaml"
        for kind, content in ATTACKS.items():
            file.write_bytes(content)
            tally.add("attack", (lost := problem_with(file, parser, catalogue)) and f"{kind}: {lost}")
        for _ in range(cases):
            kind, content = mutated(random_.choice(texts), random_)
            file.write_bytes(content)
            tally.add(kind, (lost := problem_with(file, parser, catalogue)) and f"{lost}: {content[:300]!r}")
    tally.finish()


if __name__ == "__main__":
    main()
