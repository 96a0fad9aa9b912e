"""What a terminal would obey reaches it spelled out; a pipe and a file get it as it is."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import threading
from pathlib import Path

import pytest

from lmflow_core.cli.main import run
from lmflow_core.cli.markdown import print_markdown
from lmflow_core.cli.results import print_json
from lmflow_core.report import console

ATTACKS = {
    "clipboard": "\x1b]52;c;ZXZpbA==\x07",
    "title": "\x1b]0;root\x1b\\",
    "screen": "\x1b[2J\x1b[H",
    "one byte": "\x9b31m",
    "link": "\x1b]8;;http://evil.example\x07bank\x1b]8;;\x07",
    "overwritten": "delete everything\rkeep everything  ",
    "backspaces": "evil\b\b\b\bgood",
    "turned around": "abc\u202edef\u202c",
    "isolated": "abc\u2067def\u2069",
    "bell": "\x07\x00\x7f",
}
# What rich writes for itself: colours, and the cursor of the text that is being written.
_OF_RICH = re.compile(r"\x1b\[[0-9;]*m|\x1b\[\?25[hl]|\x1b\[\d*[AK]|\r")
_OBEYED = re.compile(r"[\x00-\x08\x0b-\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]|\r(?!\n)")


class Terminal:
    """Stands in the place of stdout and stderr; ``shown`` is all that reached it, once it is left."""

    def __init__(self) -> None:
        self.shown = ""
        self._outer, inner = os.openpty()
        self._stream = open(inner, "w", encoding="utf-8")  # noqa: SIM115  # closed on leaving
        self._received = bytearray()
        self._reading = threading.Thread(target=self._read)

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # the other end is closed
            while piece := os.read(self._outer, 65536):
                self._received += piece

    def __enter__(self) -> Terminal:
        self._reading.start()
        self._before = sys.stdout, sys.stderr
        sys.stdout = sys.stderr = self._stream
        return self

    def __exit__(self, *_: object) -> None:
        sys.stdout, sys.stderr = self._before
        self._stream.close()
        self._reading.join()
        os.close(self._outer)
        self.shown = self._received.decode().replace("\r\n", "\n")


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("TERM", "xterm-256color")
    return Terminal()


@pytest.mark.parametrize("text", ATTACKS.values(), ids=ATTACKS)
def test_a_terminal_is_shown_what_it_would_obey(terminal: Terminal, text: str) -> None:
    with terminal:
        console.show(text)
        console.note(text)
        print_json({text: text})
    assert _OBEYED.search(terminal.shown) is None
    assert terminal.shown.startswith(console.visible(text) + "\n")
    assert json.loads(terminal.shown.split("\n", 2)[2]) == {text: text}


@pytest.mark.parametrize("text", ATTACKS.values(), ids=ATTACKS)
def test_a_pipe_gets_it_as_it_is(capsys: pytest.CaptureFixture[str], text: str) -> None:
    console.show(text, color="green", bold=True)
    console.note(text)
    assert capsys.readouterr() == (f"{text}\n", f"lmflow: {text}\n")


def test_other_texts_are_left_as_they_are(terminal: Terminal) -> None:
    text = "a\tb\nc é 你好 🙂 \u200f שלום \u200d"
    with terminal:
        console.show(text)
        console.show("green", color="green")
    assert terminal.shown == text + "\n\x1b[32mgreen\x1b[0m\n"


@pytest.mark.parametrize(
    "text",
    [
        *ATTACKS.values(),
        *(f"```\n{text}\n```\n\n> {text}" for text in ATTACKS.values()),
        "&#27;]52;c;ZXZpbA==&#7; &#x9b;31m &#x202e;abc",
        "<http://a/%1b]52;c;x%07%E2%80%AE>",
        "[bank](http://evil.example/%1b]0;x%07) ![\x1b[2J](http://evil.example/\x1b[2J)",
    ],
)
def test_markdown_spells_nothing_that_is_obeyed(terminal: Terminal, text: str) -> None:
    with terminal:
        print_markdown(text)
    assert _OBEYED.search(_OF_RICH.sub("", terminal.shown)) is None


def test_a_link_shows_where_it_leads(terminal: Terminal) -> None:
    with terminal:
        print_markdown(["[bank](http://evil.example)"])
    assert "http://evil.example" in _OF_RICH.sub("", terminal.shown)
    assert "\x1b]8" not in terminal.shown


@pytest.mark.parametrize("text", ATTACKS.values(), ids=ATTACKS)
def test_commands_show_names_data_and_errors(terminal: Terminal, tmp_path: Path, text: str) -> None:
    name = re.sub(r"[/\x00]", "", text)
    bad = tmp_path / f"{name}.jsonl"
    bad.write_text(json.dumps({text: text}) + "\n", encoding="utf-8")
    template = tmp_path / f"{name}.yaml"
    described = {"user": f"{text}{{content}}", "assistant": "{content}\n", "stop": ["\n"]}
    template.write_text(json.dumps(described), encoding="utf-8")
    lines = (["data", "check", str(bad)], ["templates", "show", str(template)], ["templates", "show", text])
    with terminal:
        statuses = [run(line) for line in lines]
    assert statuses == [2, 0, 2]
    assert _OBEYED.search(_OF_RICH.sub("", terminal.shown)) is None
    assert console.visible(text) in terminal.shown
