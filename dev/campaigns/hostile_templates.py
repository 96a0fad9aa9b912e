"""Renders one-line chat templates that hang, grow or try to break out, with the tokenizers of both runtimes.

Each is lost when it takes more than a few seconds or over 1 GB of memory, gives anything that it must not see, or does
any harm to the conversation that follows. A worker asks for them, and is ended from outside when it hangs.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import tempfile
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from tally import Tally, campaign_arguments

from lmflow_core.api import Message, TemplateLimitError
from lmflow_core.templates import sandbox

SECRET = "what-no-template-may-see"
# Of work: a machine that is busy takes longer. A worker that is silent for so long is ended.
MOST_SECONDS, MOST_MEMORY, SILENT = 5, 1.1 * 2**30, 60
_LOOP = "{% for {0} in range(99999) %}"
_DAG = (
    "{% set n = namespace(a=[1], b=[1]) %}"
    "{% for i in range(99) %}{% set n.a = [n.a, n.a] %}{% set n.b = [n.b, n.b] %}{% endfor %}"
)
_DOUBLES = "{% set n = namespace(a='ab') %}{% for i in range(60) %}{% set n.a = %s %}{% endfor %}{{ n.a|length }}"


def _doubled(by: str) -> str:
    return _DOUBLES.replace("%s", by)


def _nested_loops(body: str, depth: int = 4) -> str:
    return "".join(_LOOP.replace("{0}", f"v{n}") for n in range(depth)) + body + "{% endfor %}" * depth


HANGS: dict[str, str] = {
    "nested loops": _nested_loops(""),
    "nested loops that write": _nested_loops("aaaaaaaaaa"),
    "nested loops that count": _nested_loops("{% set x = v0 + v1 * v2 %}"),
    "a loop with a filter": "{% for i in range(99999) if range(99999)|sum < 0 %}{% endfor %}",
    "a loop that calls itself": "{% for i in [1, 2] recursive %}{{ loop([1, 2]) }}{{ loop([1, 2]) }}{% endfor %}",
    "a macro that calls itself twice": "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}"
    "{% endmacro %}{{ m(90) }}",
    "a block that calls itself": "{% block a %}{{ self.a() }}{{ self.a() }}{% endblock %}",
    "a caller that calls": "{% macro m(n) %}{% if n %}{{ caller() }}"
    "{% call m(n - 1) %}{{ caller() }}{{ caller() }}{% endcall %}"
    "{% endif %}{% endmacro %}{% call m(90) %}x{% endcall %}",
    "a width": "{{ '%999999999d' % 1 }}",
    "a width from a value": "{{ '%*d' % (2000000000, 1) }}",
    "a precision": "{{ '%.999999999f' % 1.0 }}",
    "many widths": "{{ '%99999999d%99999999d%99999999d%99999999d%99999999d%99999999d' % (1, 1, 1, 1, 1, 1) }}",
    "the filter format": "{{ '%999999999s'|format('a') }}",
    "a format": "{{ '{:2000000000}'.format(1) }}",
    "a format in a format": "{{ '{:{}}'.format(1, 2000000000) }}",
    "a format of a map": "{{ '{a:2000000000}'.format_map({'a': 1}) }}",
    "a width of the date": "{{ strftime_now('%999999999d') }}",
    "many dates": "{{ strftime_now('%c' * 50000000) }}",
    "a text times a number": "{{ 'a' * 10**10 }}",
    "a text times a number, held": "{% set a = 'a' * 10**9 %}{% set b = a * 2 %}",
    "a list times a number": "{{ ([1] * 10**9)|length }}",
    "a tuple times a number": "{{ ((1, 2) * 10**9)|length }}",
    "a power": "{{ 9**9**9 }}",
    "a power, twice": "{{ (7 ** 9999999) ** 99 }}",
    "a power of a decimal": "{{ 9.0**9**9 }}",
    "powers in a loop": "{% set n = namespace(a=3) %}{% for i in range(99) %}{% set n.a = n.a * n.a %}{% endfor %}",
    "a division of large numbers": "{{ (10**9999999) // (3**9999999) }}",
    "a remainder of large numbers": "{{ (10**9999999) % (3**9999999) }}",
    "digits of a large number": "{{ (10**4999999)|string }}",
    "doubling with ~": _doubled("n.a ~ n.a"),
    "doubling with +": _doubled("n.a + n.a"),
    "doubling with *": _doubled("n.a * 2"),
    "doubling with join": _doubled("[n.a, n.a]|join"),
    "doubling with join and a separator": _doubled("[1, 2, 3]|join(n.a)"),
    "doubling with replace": _doubled("n.a|replace('a', n.a)"),
    "doubling with the method replace": _doubled("n.a.replace('b', n.a)"),
    "doubling with the method join": _doubled("n.a.join(['a', 'b', 'c'])"),
    "doubling with format": _doubled("'%s%s'|format(n.a, n.a)"),
    "doubling with %": _doubled("'%s%s' % (n.a, n.a)"),
    "doubling with the method format": _doubled("'{0}{0}'.format(n.a)"),
    "doubling with translate": _doubled("n.a.translate({97: n.a})"),
    "doubling a list": _doubled("n.a|list + n.a|list"),
    "doubling a dictionary": _doubled("dict(a=n.a, b=n.a)|string"),
    "doubling with tojson": _doubled("[n.a, n.a]|tojson"),
    "doubling with a set block": "{% set a %}ab{% endset %}" + "{% set a %}{{ a }}{{ a }}{% endset %}" * 60,
    "doubling with indent": _doubled("n.a|indent(n.a|length, true)"),
    "join of a range": "{{ range(99999)|join('a' * 99999) }}",
    "slices": "{{ range(99999)|slice(999999999)|list|length }}",
    "batches": "{{ [1]|batch(999999999, 'x')|list|length }}",
    "tojson with an indent": "{{ [[[[1]]]]|tojson(indent=999999999) }}",
    "wordwrap": "{{ ('a ' * 9999999)|wordwrap(1) }}",
    "wordwrap with a long end": "{{ ('a ' * 99999)|wordwrap(1, wrapstring='b' * 99999) }}",
    "center": "{{ 'a'|center(2000000000) }}",
    "the methods that pad": "{{ 'a'.ljust(2000000000).rjust(2000000001).zfill(2000000002) }}",
    "tabs": "{{ '\\t'.expandtabs(2000000000) }}",
    "indent": "{{ ('a\\n' * 99999)|indent(99999) }}",
    "bytes of a number": "{{ (1).to_bytes(2000000000)|length }}",
    "lipsum": "{{ lipsum(n=99999) }}",
    "cycler": "{% set c = cycler(1, 2) %}" + _nested_loops("{{ c.next() }}"),
    "sums of ranges": _nested_loops("{{ range(99999)|sum }}", 2),
    "sorting": _nested_loops("{{ range(99999)|sort(reverse=true)|first }}", 2),
    "a membership": _nested_loops("{{ -1 in range(99999)|list }}", 2),
    "groups": _nested_loops("{{ range(99999)|groupby|length }}", 2),
    "a comparison of lists that share": _DAG + "{{ n.a == n.b }}",
    "a text of lists that share": _DAG + "{{ n.a }}",
    "JSON of lists that share": _DAG + "{{ n.a|tojson }}",
    "pprint of lists that share": _DAG + "{{ n.a|pprint }}",
    "links": "{{ ('http://' * 999999)|urlize }}",
    "tags": "{{ ('<!--' * 999999)|striptags }}",
    "escapes": "{{ ('<' * 99999999)|escape|escape|escape|length }}",
    "titles": "{{ ('a ' * 99999999)|title|length }}",
    "words": "{{ ('a ' * 99999999)|wordcount }}",
    "long nesting of brackets": "{{ " + "(" * 9999 + "1" + ")" * 9999 + " }}",
    "long nesting of lists": "{{ " + "[" * 99999 + "]" * 99999 + " }}",
    "long nesting of conditions": "{% if 1 %}" * 999 + "{% endif %}" * 999,
    "many minus signs": "{{ " + "-" * 99999 + "1 }}",
    "many attributes": "{{ a" + ".a" * 99999 + " }}",
    "many filters": "{{ 'a'" + "|upper" * 99999 + " }}",
    "many variables": "".join(f"{{% set v{n} = {n} %}}" for n in range(99999)),
    "many outputs": "{{ a }}" * 999999,
    "a long literal number": "{{ " + "9" * 999999 + " }}",
    "a long comparison": "{{ 1" + " < 1" * 99999 + " }}",
    "a long sum": "{{ 1" + " + 1" * 99999 + " }}",
    "a constant of constants": "{{ 'a'|center(99999)|center(9999999)|center(999999999) }}",
    "a constant in a branch that is never taken": "{% if false %}{{ 'a'|center(2000000000) }}{% endif %}",
    "a constant with ~": "{{ " + " ~ ".join(["'a'|center(99999999)"] * 40) + " }}",
    "an open comment": "{#" * 999999,
    "an open block": "{%" * 99999,
    "raw blocks": "{% raw %}" * 99999,
}

ESCAPES: dict[str, str] = {
    "the class of a text": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "the class by brackets": "{{ ''['__class__']['__mro__'] }}",
    "the class by |attr": "{{ ''|attr('__class__')|attr('__mro__') }}",
    "the class by |attr in parts": "{{ ''|attr('__cla' ~ 'ss__')|attr('__m' ~ 'ro__') }}",
    "the class by |map": "{{ ['']|map(attribute='__class__')|list }}",
    "the class by |sort": "{{ ['']|sort(attribute='__class__')|map(attribute='__class__')|list }}",
    "the class by |groupby": "{{ ['']|groupby('__class__')|list }}",
    "the class by a format": "{{ '{0.__class__.__mro__}'.format('') }}",
    "the class by a format with a key": "{{ '{a.__class__.__mro__}'.format(a='') }}",
    "the class by a format of a map": "{{ '{a.__class__}'.format_map({'a': ''}) }}",
    "the class by a format that is fetched": "{{ ('{0.__class__}'|attr('format'))('') }}",
    "the class by a format that is mapped": "{{ ['{0.__class__.__mro__}']|map('format', '')|list }}",
    "a format in a loop": "{% for f in ['{0.__class__}'.format] %}{{ f('') }}{% endfor %}",
    "globals of a function": "{{ raise_exception.__globals__ }}",
    "globals of a function by |attr": "{{ (raise_exception|attr('__globals__'))['os'].environ }}",
    "globals of a macro": "{% macro m() %}{% endmacro %}{{ m.__call__.__globals__ }}{{ m._func.__globals__ }}",
    "globals of a namespace": "{{ namespace.__init__.__globals__['os'].environ }}",
    "globals of dict": "{{ dict.__call__.__globals__['os'].environ }}{{ dict.fromkeys.__func__.__globals__ }}",
    "globals of the loop": "{% for i in [1] %}{{ loop.__init__.__globals__ }}{{ loop._iterable }}{% endfor %}",
    "globals of joiner": "{{ joiner.__init__.__globals__['os'] }}",
    "globals of a format": "{{ '{0.__globals__}'.format(raise_exception) }}",
    "globals of a format, two steps": "{{ '{0.__init__.__globals__[os].environ}'.format(namespace) }}",
    "the object behind a method": "{{ strftime_now.__self__.__class__ }}{{ ''.join.__self__.__class__ }}",
    "the template itself": "{{ self.__init__.__globals__ }}{{ self._TemplateReference__context }}",
    "its environment": "{{ self._TemplateReference__context.environment.globals }}",
    "the loader": "{% include '/proc/self/environ' %}",
    "an import": "{% import 'os' as os %}{{ os.environ }}",
    "a parent": "{% extends '/proc/self/environ' %}",
    "a dunder of a namespace": "{% set n = namespace() %}{% set n.__class__ = 1 %}{{ n }}",
    "a namespace made with one": "{{ namespace(**{'__class__': 1}) }}",
    "a change of what it is given": "{{ messages.append(messages[0]) }}{{ messages }}",
    "a change by a type": "{{ dict.update(messages[0], {'content': 'x'}) }}",
    "the frame of a generator": "{% set g = messages|map('upper') %}{{ g.gi_frame.f_back.f_globals }}",
    "the code of a function": "{{ raise_exception.__code__.co_consts }}",
    "the type of an undefined": "{{ nothing.__class__.__init__.__globals__ }}",
    "builtins": "{{ __builtins__ }}{{ __import__('os').environ }}{{ open('/proc/self/environ').read() }}",
    "a call of an undefined": "{{ eval('1') }}",
    "debug": "{% debug %}",
    "an expression of Python": "{{ (lambda: 1)() }}",
    "a walrus in a name": "{% set __loader__ = 1 %}{{ __loader__.__class__ }}",
    "a name that ends the code": "{{ messages if 1 else 2\nimport os\n }}",
    "a text that ends the code": "{{ '''\\'\\nimport os\\n' }}",
    "a filter by a name": "{{ messages|attr('__class__')|attr('__base__')|attr('__subclasses__') }}",
    "a test by a name": "{{ messages is callable }}{{ ''|select('__class__')|list }}",
}
_FORBIDDEN = (SECRET, "<class", "<module", "<frame", "<code", "mappingproxy", "GeneratorContextManager", "root:x:")
_MESSAGES = (Message("user", "hi"),)
_Answer = tuple[str, str, int, float, str | None]
_Render = Callable[[str], str | None]


def _torch() -> _Render:
    from lmflow_core.testing.tiny import make_tokenizer
    from lmflow_transformers.tokenizers import TransformersTokenizer

    inner = make_tokenizer()

    def render(template: str) -> str | None:
        inner.chat_template = template
        return TransformersTokenizer(inner).render_chat(_MESSAGES, True)

    return render


def _gguf() -> _Render:
    from gguf import GGUFWriter

    from lmflow_gguf.tokenizer import GgufTokenizer

    folder = tempfile.TemporaryDirectory()
    file = Path(folder.name, "model.gguf")

    def render(template: str) -> str | None:
        assert folder
        writer = GGUFWriter(file, "llama")
        writer.add_tokenizer_model("llama")
        writer.add_token_list(["<unk>", "<s>", "</s>", *(f"<0x{number:02X}>" for number in range(256)), "a"])
        writer.add_token_scores([0.0] * 260)
        writer.add_token_types([2, 3, 3, *[6] * 256, 1])
        writer.add_chat_template(template)
        writer.add_tensor("output.weight", np.zeros(32, np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return GgufTokenizer(file).render_chat(_MESSAGES, True)

    return render


RUNTIMES: dict[str, Callable[[], _Render]] = {"torch": _torch, "gguf": _gguf}


def _work(runtime: str, pipe: Connection) -> None:
    """Answer each template with what became of it: a word, a text, bytes and seconds taken, the answer after it."""
    render, worked = RUNTIMES[runtime](), 0.0
    while True:
        template = pipe.recv()
        try:
            text = render(template)
            told = ("refused", "") if text is None else ("rendered", text)
        except TemplateLimitError as error:
            told = ("bounded", str(error))
        except BaseException as error:
            told = ("failed", repr(error))
        # What a renderer took is known when it has ended.
        sandbox._processes.end()
        sandbox._processes.forget()
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        worked, before = used.ru_utime + used.ru_stime, worked
        pipe.send((*told, used.ru_maxrss * 1024, worked - before, render("{{ messages[0].content }}")))


class _Worker:
    def __init__(self, runtime: str) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        self._process = multiprocessing.get_context("fork").Process(target=_work, args=(runtime, theirs), daemon=True)
        self._process.start()

    def ask(self, template: str) -> _Answer | None:
        self._pipe.send(template)
        if not self._pipe.poll(SILENT):
            self._process.kill()
            return None
        try:
            answer: _Answer = self._pipe.recv()
        except EOFError:
            return None
        return answer


def _problem(answer: _Answer | None) -> str | None:
    if answer is None:
        return "the worker had to be ended"
    word, text, memory, seconds, after = answer
    problems = {
        f"failed with {text[:200]}": word == "failed",
        f"took {seconds:.1f} s": seconds > MOST_SECONDS,
        f"took {memory >> 20} MB": memory > MOST_MEMORY,
        f"gave {text[:200]!r}": word == "rendered" and any(secret in text for secret in _FORBIDDEN),
        "wrote too much": word == "rendered" and len(text) > 2_000_000,
        f"did not tell how to mend it: {text}": word == "bounded" and "--template NAME" not in text,
        "changed the next conversation": after != "hi",
    }
    return next((problem for problem, holds in problems.items() if holds), None)


def main() -> None:
    """Run the campaign."""
    cases, source = campaign_arguments(__doc__, 2 * (len(HANGS) + len(ESCAPES)))
    os.environ["LMFLOW_CAMPAIGN"] = SECRET
    tally = Tally()
    kinds = {"hangs": HANGS, "escapes": ESCAPES}
    chosen = [(r, kind, *case) for r in RUNTIMES for kind, them in kinds.items() for case in them.items()]
    workers: dict[str, _Worker] = {}
    seconds = memory = 0.0
    for runtime, kind, name, template in source.sample(chosen, min(cases, len(chosen))):
        worker = workers.pop(runtime, None) or _Worker(runtime)
        answer = worker.ask(template)
        problem = _problem(answer)
        tally.add(f"{runtime}: {kind}", None if problem is None else f"{name}: {problem}")
        if answer is not None:
            workers[runtime] = worker
            memory, seconds = max(memory, answer[2]), max(seconds, answer[3])
    print(f"at most {seconds:.1f} s of work and {memory / 2**20:.0f} MB")
    tally.finish()


if __name__ == "__main__":
    main()
