"""Chat templates of strangers: what they may do, and that no bound is passed in any thread or fork."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lmflow_core.contracts.examples import Message
from lmflow_core.errors import ModelError
from lmflow_core.templates import sandbox
from lmflow_core.templates.own import JinjaTemplate
from lmflow_core.templates.sandbox import TemplateLimitError, render_jinja
from lmflow_core.testing.letters import Letters

VALUES = {"messages": [{"role": "user", "content": "hi", "size": 2}], "bos_token": "<s>"}
HOSTILE = {
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}": "takes more than 2 seconds",
    "{{ 7 ** 99999999 }}": "takes more than 2 seconds",
    "{{ '%999999999d' % 1 }}": "takes more than (1 GB of memory|2 seconds)|writes more than",
    "{{ 'a' * 10**10 }}": "takes more than 1 GB of memory",
    "{{ ('a' * 10**7) }}": "writes more than 10 times",
    "{{ '{:2000000000}'.format(1) }}": "takes more than 1 GB of memory",
}


@pytest.mark.parametrize("template", HOSTILE)
def test_a_template_beyond_a_bound_is_told(template: str) -> None:
    problem = (
        rf"^the chat template of m ({HOSTILE[template]}).*: choose a template that LMFlow knows with --template NAME$"
    )
    with pytest.raises(TemplateLimitError, match=problem):
        render_jinja(template, VALUES, "the chat template of m")
    assert render_jinja("{{ bos_token }}", VALUES) == "<s>"


@pytest.mark.parametrize(
    "template",
    [
        "{{ lipsum() }}",
        "{{ cycler(1, 2).next() }}",
        "{{ raise_exception('no') }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ raise_exception.__globals__['os'] }}",
        "{{ ('{0.__class__.__mro__}'|attr('format'))(messages) }}",
        "{% set n = namespace(_a=1) %}",
        "{% set n = namespace() %}{% set n.__class__ = 1 %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% include '/etc/passwd' %}",
        "{% for %}",
    ],
)
def test_what_a_template_may_not_do_is_a_refusal(template: str) -> None:
    assert render_jinja(template, VALUES) is None


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ strftime_now('%d %B %Y, %H:%M') }}", "26 July 2024, 00:00"),
        ("{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% break %}{% endfor %}", "hi"),
        ("{{ messages|tojson }}", '[{"role": "user", "content": "hi", "size": 2}]'),
        ("{{ {'b': 'é', 'a': 1}|tojson(ensure_ascii=true, separators=(',', ':'), sort_keys=true) }}", None),
        ("{% set n = namespace(self=1) %}{% set n.a = 2 %}{{ n.self + n.a }}", "3"),
        ("{{ dict(a=1).a }}{{ dict.fromkeys('ab', 0) }}", "1{'a': 0, 'b': 0}"),
        ("{% if true %}\n  a\n{% endif %}\nb", "  a\nb"),
        ("{{ missing }}", ""),
    ],
)
def test_what_a_template_may_do(template: str, text: str | None) -> None:
    assert render_jinja(template, VALUES) == ('{"a":1,"b":"\\u00e9"}' if text is None else text)


@pytest.mark.parametrize("content", ["a\nb\r\n\u2028", "\ud800", "😀" * 1000, "\0", "x" * 3_000_000])
def test_texts_come_back_as_they_are(content: str) -> None:
    assert render_jinja("{{ content }}", {"content": content}) == content


def test_values_that_json_has_no_place_for_are_a_refusal() -> None:
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    assert render_jinja("a", {"nested": nested}) is None


def test_every_thread_gets_its_own_answer_and_one_that_hangs_stops_no_other() -> None:
    def rendered(number: int) -> str | None:
        if number % 20 == 7:
            with pytest.raises(TemplateLimitError):
                render_jinja("{{ 'a' * 10**10 }}", {})
            return str(number)
        return render_jinja("{{ number }}" if number % 2 else "{{- number }}", {"number": number})

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(rendered, range(100))) == [str(number) for number in range(100)]


def test_a_process_that_somebody_ends_is_replaced() -> None:
    assert render_jinja("a", {}) == "a"
    with sandbox._processes.one() as process:
        os.kill(process._inner.pid, signal.SIGKILL)
        process._inner.wait()
    assert render_jinja("a", {}) == "a"


def test_a_process_that_cannot_be_started_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_processes", sandbox._Processes())
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(ModelError, match=r"^the process that renders chat templates cannot be started: No such file"):
        render_jinja("a", {})


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is set by a shell of Linux")
def test_a_system_with_a_smaller_limit_keeps_its_own() -> None:
    code = "from lmflow_core.templates.sandbox import render_jinja; print(render_jinja('{{ 1 + 1 }}', {}))"
    shell = f'ulimit -v 600000 && exec "{sys.executable}" -c "{code}"'
    program = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=False)
    assert (program.stdout, program.returncode) == ("2\n", 0)


def test_an_interruption_between_question_and_answer_mixes_none_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(process: Any, template: str, values: str) -> bytes:
        answer = ask(process, template, values)
        if answer:
            raise KeyboardInterrupt
        return answer

    ask = sandbox._Process.ask
    with monkeypatch.context() as patched:
        patched.setattr(sandbox._Process, "ask", interrupted)
        with pytest.raises(KeyboardInterrupt):
            render_jinja("first", {})
    assert render_jinja("second", {}) == "second"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks are those of POSIX")
def test_a_fork_renders_in_a_process_of_its_own() -> None:
    assert render_jinja("a", {}) == "a"
    child = os.fork()
    if not child:
        os._exit(0 if render_jinja("{{ 1 + 1 }}", {}) == "2" else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert render_jinja("b", {}) == "b"


def test_the_process_ends_with_the_one_that_started_it(tmp_path: Path) -> None:
    code = (
        "import os; from lmflow_core.templates import sandbox; sandbox.render_jinja('a', {})\n"
        "with sandbox._processes.one() as process: print(process._inner.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)"
    )
    program = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    started = int(program.stdout)
    for _ in range(500):
        try:
            os.kill(started, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{started}/stat").exists() and Path(f"/proc/{started}/stat").read_text().split()[2] == "Z":
            return
        time.sleep(0.01)
    pytest.fail("the process that renders outlived the one that started it")


class _Hangs(Letters):
    chat_template = "hangs"

    def render_chat(self, *_: Any, **__: Any) -> str | None:
        raise TemplateLimitError("the chat template of m", "takes more than 2 seconds to render one conversation")


def test_a_bound_is_told_as_a_refusal_of_the_conversation() -> None:
    with pytest.raises(ValueError, match=r"^the chat template of m takes more than 2 seconds .* --template NAME$"):
        JinjaTemplate(_Hangs(), "hangs").render((Message("user", "a"),), True)
