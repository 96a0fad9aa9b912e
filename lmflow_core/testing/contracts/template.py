"""The contract of templates: one text in every rendering, what is trained in it, and how it ends."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from lmflow_core.contracts.examples import Message, Segment, ToolCall
from lmflow_core.contracts.template import TemplateSpec
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.templates.sandbox import TemplateLimitError
from lmflow_core.testing import chats
from lmflow_core.testing.contracts.template_training import TrainedParts
from lmflow_core.testing.others import loaded

# What chat templates may ask for: the values of a conversation, and what transformers and the sandbox add to Jinja.
_VARIABLES = frozenset(
    (
        *("messages", "tools", "documents", "add_generation_prompt", "bos_token", "eos_token"),
        *("raise_exception", "strftime_now", "namespace", "range", "dict"),
    )
)
_TURNS = 200
_DIGEST = """
import importlib, sys
module, _, attribute = sys.argv[1].partition(":")
print(getattr(importlib.import_module(module), attribute).fingerprint)
"""
_SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}, "count": {"type": "integer"}}}
_LOOK = {"type": "function", "function": {"name": "look_up", "description": "Look.", "parameters": _SCHEMA}}
_CALLS = (
    (ToolCall("look_up", {"text": "Ünï \"quoted\" 'so' {x}", "count": 3}),),
    (ToolCall("look_up", {"text": "12"}),),
    (ToolCall("look_up", {"text": "a\nb", "count": -1}), ToolCall("look_up", {"count": 0})),
    (ToolCall("look_up", {}),),
)


class TemplateContract(TrainedParts):
    """What a template must do, tried on conversations of every shape; those it has no place for it must refuse."""

    @pytest.fixture(scope="class")
    @classmethod
    def texts(cls, bound: Any) -> Mapping[str, str | None]:
        """Return the text of each shape, None where the template has no place for it."""
        return {name: chats.text_or_none(bound, shape) for name, shape in chats.SHAPES.items()}

    @pytest.fixture
    def jinja(self, bound: Any) -> str:
        """Return its Jinja text, where Jinja is there to render it."""
        pytest.importorskip("jinja2", reason="jinja2 is not installed")
        return str(bound.to_jinja())

    def test_it_renders_a_question_and_its_answer(self, bound: Any) -> None:
        """It has a place for a question and an answer, and for more of them."""
        for name in ("single", "several", "prompt", "second prompt"):
            bound.render(*chats.SHAPES[name])

    def test_nothing_is_left_out(self, bound: Any, texts: Mapping[str, str | None]) -> None:
        """What stands in a conversation that it takes, stands in the text; what it has no place for it refuses."""
        for name, text in texts.items():
            if text is None:
                continue
            for message in chats.SHAPES[name][0]:
                for said in (message.text, *(call.name for call in message.tool_calls)):
                    written = said in text or json.dumps(said)[1:-1] in text
                    assert written, f"{name}: {said!r} of the {message.role} is not in the text {text!r}"
            offered = [tool["function"]["name"] for tool in chats.SHAPES[name][2]]
            lost = [tool for tool in offered if tool not in text]
            assert not lost, f"{name}: the tools {', '.join(lost)} are not in the text {text!r}"

    def test_segments_hold_text(self, bound: Any) -> None:
        """Segments are what the protocol says, none is empty, and a rendering is the same when it is repeated."""
        for name, shape, segments in chats.rendered_shapes(bound):
            wrong = [segment for segment in segments if not isinstance(segment, Segment) or not segment.text]
            assert not wrong, f"{name}: {wrong[0]!r} is no segment with a text"
            assert bound.render(*shape) == segments, f"{name}: rendered again, it is another text"

    def test_jinja_renders_the_same_text(self, jinja: str, texts: Mapping[str, str | None]) -> None:
        """Jinja gives the text of the segments, and refuses what has no place."""
        for name, text in texts.items():
            _compare(name, chats.sandboxed(jinja, chats.SHAPES[name]), text)

    def test_transformers_renders_the_same_text(self, jinja: str, texts: Mapping[str, str | None]) -> None:
        """The chat template of a saved model gives the text of the segments in plain transformers."""
        if importlib.util.find_spec("transformers") is None:
            pytest.skip("transformers is not installed")
        for name, text in texts.items():
            _compare(name, chats.by_transformers(jinja, chats.SHAPES[name]), text)

    def test_white_space_and_empty_contents(self, bound: Any, jinja: str) -> None:
        """Contents with white space at their ends, and empty ones, are the same text in Jinja."""
        for contents in (("\n a ", " b\n"), ("", ""), ("a", " ")):
            messages = (Message("user", contents[0]), Message("assistant", contents[1]))
            systems = [(), *((Message("system", content),) for content in (" s\n", ""))]
            for system in systems:
                shape: chats.Shape = ((*system, *messages), False, ())
                _compare(repr(shape[0]), chats.sandboxed(jinja, shape), chats.text_or_none(bound, shape))

    def test_what_looks_like_markup_stays_content(
        self, bound: Any, jinja: str, texts: Mapping[str, str | None]
    ) -> None:
        """A content that holds Jinja, slots or the template's own marks is content, and the markup stays as it was."""
        roles = ("user", "assistant") if texts["system"] is None else ("system", "user", "assistant")
        plain = bound.render(tuple(Message(role, "x") for role in roles), False)
        marks = [segment.text.strip() for segment in plain if segment.control and segment.text.strip()]
        for nasty in (*chats.NASTY, "a".join(("", *marks, ""))):
            # An answer that holds what closes reasoning may be read as both.
            contents = {role: nasty for role in roles if role != "assistant" or nasty in chats.NASTY}
            shape: chats.Shape = (tuple(Message(role, contents.get(role, "x")) for role in roles), False, ())
            segments = bound.render(*shape)
            written = [segment.text for segment in segments if not segment.control]
            given = iter([message.text for message in shape[0]])
            expected = [next(given) if s.text == "x" else s.text for s in plain if not s.control]
            assert written == expected, f"the contents {expected!r} became {written!r}"
            assert _controls(segments) == _controls(plain), f"with the content {nasty!r} the markup is another"
            _compare(repr(nasty), chats.sandboxed(jinja, shape), chats.text_of(segments))

    def test_stops_are_texts(self, bound: Any) -> None:
        """Stops are texts that differ; where there are none, nothing of the template stands behind an answer."""
        assert isinstance(bound.stop, tuple), f"stop is {bound.stop!r}, no tuple"
        assert all(isinstance(stop, str) and stop for stop in bound.stop), f"an empty stop: {bound.stop!r}"
        assert len(set(bound.stop)) == len(bound.stop), f"a stop twice: {bound.stop!r}"
        if not bound.stop:
            text = chats.text_of(bound.render((chats.ASK, chats.ANSWER), False))
            assert text.endswith(chats.ANSWER.text), f"there is no stop, and {text!r} goes on behind the answer"

    def test_tokens_of_the_tokenizer_are_filled_in(self, target: Any) -> None:
        """``bind`` fills in the tokens, leaves the template it is called on, and takes None for both."""
        before = target.fingerprint
        one, other = target.bind("<S1>", "<E1>"), target.bind("<S2>", "<E2>")
        assert target.fingerprint == before, "bind changes the template it is called on"
        swapped = [text.replace("<S1>", "<S2>").replace("<E1>", "<E2>") for text in _everything(one)]
        assert swapped == _everything(other), "with other tokens more changes than the tokens"
        target.bind(None, None).render(*chats.SHAPES["single"])
        tokens = ("<S1>", "<E1>")
        for name, _, segments in chats.rendered_shapes(one):
            data = [s.text for s in segments if not s.control and any(token in s.text for token in tokens)]
            assert not data, f"{name}: {data} is the tokenizer's, and not marked as control"
            slots = [slot for slot in ("{bos}", "{eos}") if slot in chats.text_of(segments)]
            assert not slots, f"{name}: {', '.join(slots)} is left in the text"

    def test_a_fingerprint_stands_for_what_is_rendered(self, target: Any, catalogue: Catalogue) -> None:
        """Templates that render otherwise have other fingerprints, the same one bound to other tokens too."""
        bound = [target.bind(f"<S{number}>", f"<E{number}>") for number in (1, 2, 1)]
        digests = [template.fingerprint for template in bound]
        assert digests[0] == digests[2], "bound to the same tokens twice, it has two fingerprints"
        if _everything(bound[0]) != _everything(bound[1]):
            assert digests[0] != digests[1], "bound to other tokens it renders another text under one fingerprint"
        for provided, template in loaded(catalogue, self.kind):
            other = template.bind("<S1>", "<E1>")
            if template is not target and other.fingerprint == digests[0]:
                same = _everything(other) == _everything(bound[0])
                assert same, f"{provided.qualified} renders another text and has the same fingerprint"

    def test_a_fingerprint_is_the_same_in_every_process(self, target: Any, spec: TemplateSpec) -> None:
        """The fingerprint is the same in another process."""
        path = os.pathsep.join(filter(None, sys.path))
        environment = {**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "7"}
        finished = subprocess.run(
            [sys.executable, "-c", _DIGEST, spec.target], capture_output=True, text=True, env=environment, check=False
        )
        assert finished.returncode == 0, f"it cannot be loaded in another process: {finished.stderr[-300:]}"
        found = finished.stdout.strip()
        assert found == target.fingerprint, f"{target.fingerprint} here, and {found} in another process"

    def test_calls_are_read_back(self, bound: Any, texts: Mapping[str, str | None]) -> None:
        """Calls that it renders are read back; without a place for tools there are none to read."""
        if texts["call"] is None:
            assert bound.read_calls("hello") is None, "it has no place for tools, and reads calls"
            return
        for calls in _CALLS:
            call = Message("assistant", "", tool_calls=calls)
            try:
                segments = bound.render((chats.ASK, call), False, [_LOOK])
            except ValueError:
                assert len(calls) > 1, f"it has a place for tools, and not for the call {calls[0]}"
                continue
            written = "".join(segment.text for segment in segments if segment.trainable)
            for stop in bound.stop:
                written = written.removesuffix(stop)
            found = bound.read_calls(written, [_LOOK])
            assert found is not None, "it writes calls and reads none"
            assert found[1] == calls, f"{calls} is written as {written!r} and read as {found[1]}"
        said = "Nothing to call."
        assert bound.read_calls(said, [_LOOK]) == (said, ()), "it reads a call in an answer without any"

    def test_jinja_asks_for_nothing_more(self, jinja: str) -> None:
        """The Jinja text uses the variables that chat templates are given, and no other."""
        meta, nodes = importlib.import_module("jinja2.meta"), importlib.import_module("jinja2.nodes")
        environment = importlib.import_module("jinja2").Environment(extensions=["jinja2.ext.loopcontrols"])
        tree = environment.parse(jinja)
        names = tree.find_all(nodes.Name)
        own = {name.name for name in names if name.ctx in ("store", "param")}
        own |= {macro.name for macro in tree.find_all(nodes.Macro)}
        optional = {name.name for test in tree.find_all(nodes.Test) for name in test.find_all(nodes.Name)}
        unknown = sorted(meta.find_undeclared_variables(tree) - own - optional - _VARIABLES)
        assert not unknown, f"the Jinja text uses {', '.join(unknown)}, which chat templates are not given"

    def test_a_long_conversation_is_within_bounds(self, bound: Any, jinja: str) -> None:
        """A conversation of hundreds of turns is rendered within the bounds of time and memory."""
        messages = (chats.ASK, chats.ANSWER) * _TURNS
        try:
            found = chats.sandboxed(jinja, (messages, False, ()))
        except TemplateLimitError as error:
            raise AssertionError(str(error)) from None
        _compare("a long conversation", found, chats.text_of(bound.render(messages, False)))


def _everything(template: Any) -> list[str]:
    """Return what a template renders: every shape it takes, its stops, what is trained on and its Jinja text."""
    rendered = [
        text
        for _, _, segments in chats.rendered_shapes(template)
        for text in (chats.text_of(segments), _marked(segments))
    ]
    return [*rendered, *template.stop, template.to_jinja()]


def _marked(segments: Sequence[Segment]) -> str:
    return "".join(f"[{segment.text}]" for segment in segments if segment.trainable)


def _controls(segments: Sequence[Segment]) -> list[str]:
    return [segment.text for segment in segments if segment.control]


def _compare(told: str, jinja: str | None, segments: str | None) -> None:
    if jinja == segments:
        return
    if jinja is None or segments is None:
        refusing, other = ("Jinja", "segments") if jinja is None else ("render", "Jinja")
        raise AssertionError(f"{told}: {refusing} refuses it, and {other} give {jinja or segments!r}")
    at = next((at for at, (a, b) in enumerate(zip(jinja, segments, strict=False)) if a != b), 0)
    start = max(at - 20, 0)
    raise AssertionError(
        f"{told}: from character {at} on Jinja gives {jinja[start : at + 60]!r} "
        f"and the segments {segments[start : at + 60]!r}"
    )
