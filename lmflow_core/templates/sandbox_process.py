"""The process that renders chat templates of strangers: Jinja in a sandbox, within bounds that the system keeps.

A chat template is a program that came with a model. What may run long or grow large in one cannot be listed: loops,
widths of numbers, joins, what is computed while it is compiled. So this process is ended by the system when it works
too long or takes too much memory, and :mod:`lmflow_core.templates.sandbox`, which starts it, tells why.

It reads requests from its input, a line of JSON each: ``[template, values]``, where the template is null when it is
that of the request before. It answers with a line of JSON: the text, null when the template refuses the conversation,
or a list with the name of the bound that it goes beyond. Its arguments are the bounds, as :class:`Bounds` has them.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import signal
import sys
from collections.abc import Iterable
from typing import Any, NamedTuple, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

# A template that asks for the date is given this one: a text trained on today is the same tomorrow.
_DAY = datetime.datetime(2024, 7, 26)
# A sequence without an end, and random words.
_LEFT_OUT = ("cycler", "lipsum")


class Bounds(NamedTuple):
    """How far one rendering may go.

    Attributes:
        seconds: of work.
        memory: of the whole process, in bytes.
        times: how many times as long as the request the text may be,
        characters: and how many characters longer than that.
    """

    seconds: int
    memory: int
    times: int
    characters: int


def main() -> None:
    """Render what is asked for until the input ends."""
    bounds = Bounds(*map(int, sys.argv[1:]))
    environment = make_environment()
    _give_up_what_is_not_needed(bounds)
    template = None
    for line in sys.stdin.buffer:
        _wind_clock(bounds)
        try:
            source, values = json.loads(line)
            if source is not None:
                template = None
                template = environment.from_string(source)
            text = template.render(values) if template else None
            if text is not None and len(text) > bounds.times * len(line) + bounds.characters:
                _end("length")
            answer = json.dumps(text).encode()
        except MemoryError:
            _end("memory")
        except Exception:  # a template may refuse a conversation with any error of its own
            answer = b"null"
        sys.stdout.buffer.write(answer + b"\n")
        sys.stdout.buffer.flush()


def _end(bound: str) -> NoReturn:
    os.write(1, b'["%s"]\n' % bound.encode())
    os._exit(0)


def make_environment() -> ImmutableSandboxedEnvironment:
    """Return Jinja with what chat templates may use: that of transformers, less what never ends."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[LoopControlExtension, _Generation]
    )
    environment.filters["tojson"] = _to_json
    for name in _LEFT_OUT:
        del environment.globals[name]
    environment.globals |= {
        "raise_exception": _refuse,
        "strftime_now": _DAY.strftime,
        "dict": _Dict(),
        "namespace": _Namespace,
    }
    return environment


def _give_up_what_is_not_needed(bounds: Bounds) -> None:
    """Bound the memory, and write no file: even what broke out of the sandbox would leave none."""
    if sys.platform != "win32":
        import resource

        for limit, most in (
            (resource.RLIMIT_AS, bounds.memory),
            (resource.RLIMIT_FSIZE, 0),
            (resource.RLIMIT_CORE, 0),
        ):
            hard = resource.getrlimit(limit)[1]
            bounded = most if hard == resource.RLIM_INFINITY else min(most, hard)
            # A system may know a bound by name and refuse to set it.
            with contextlib.suppress(OSError, ValueError):
                resource.setrlimit(limit, (bounded, bounded))
        signal.signal(signal.SIGPROF, signal.SIG_DFL)


def _wind_clock(bounds: Bounds) -> None:
    """End the process when it has worked for so long from now; a machine that is busy elsewhere does not count."""
    if sys.platform != "win32":
        signal.setitimer(signal.ITIMER_PROF, bounds.seconds)


class _Generation(Extension):
    """Lets templates say what an assistant writes, as those for training do; the text is as without."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Dict:
    """The type ``dict`` as far as templates need it, without the attributes of a type."""

    def __call__(self, *pairs: Any, **values: Any) -> dict[Any, Any]:
        return dict(*pairs, **values)

    def fromkeys(self, keys: Iterable[Any], value: Any = None) -> dict[Any, Any]:
        return dict.fromkeys(keys, value)


class _Namespace(Namespace):
    """A namespace that stores nothing under a name with which Python means something."""

    def __init__(*args: Any, **values: Any) -> None:
        # A template may call a value ``self``, so that the parameter must not be called so.
        self, *pairs = args
        Namespace.__init__(self)
        for name, value in dict(*pairs, **values).items():
            self[name] = value

    def __setitem__(self, name: str, value: Any) -> None:
        if str(name).startswith("_"):
            raise SecurityError(f"a chat template stores {name!r}")
        super().__setitem__(name, value)


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


if __name__ == "__main__":
    main()
