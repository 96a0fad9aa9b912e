"""``lmflow chat`` in a terminal: what is typed, the commands in it, and answers as they are written."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from lmflow_core.cli.markdown import print_markdown
from lmflow_core.contracts.generation import AnswerStream, ChatModel
from lmflow_core.data.image_files import check_image
from lmflow_core.data.image_paths import is_address
from lmflow_core.errors import LmflowError, RequestError, suggestion
from lmflow_core.generation.history import load_messages, save_messages
from lmflow_core.generation.session import ChatSession
from lmflow_core.report import console

_QUOTES = '"""'
_HELP = {
    "/reset": "forget the conversation; the system prompt stays",
    "/system TEXT": "set the system prompt; 'none' removes it, no text shows it",
    "/image PATH": "show an image with the next message; again, another one beside it",
    "/save FILE": "write the conversation to a JSONL file, which 'lmflow finetune' can train on",
    "/load FILE": "go on with the conversation in the last row of a JSONL file",
    "/regenerate": "answer the last message anew, with the next seed",
    "/params NAME=VALUE …": "change how answers are sampled; alone, show it",
    "/help": "show this",
    "/exit": "end",
}
_MORE_LINES = 'A line that ends with a backslash goes on in the next; """ begins and ends a text of several lines.'


class ChatTerminal:
    """One run of ``lmflow chat``."""

    def __init__(self, model: ChatModel, images: Sequence[str] = ()) -> None:
        """Talk with a model; the first message shows some images, if any."""
        self._session = ChatSession(model)
        self._session.images = [*images]
        self._saved: set[Path] = set()
        self._commands: dict[str, Callable[[str], None]] = {
            "/reset": self._reset,
            "/system": self._system,
            "/image": self._image,
            "/save": self._save,
            "/load": self._load,
            "/regenerate": self._regenerate,
            "/params": self._params,
            "/help": self._help,
        }

    def run(self) -> None:
        """Answer what is typed until the end."""
        _edit_lines()
        console.note("/help shows the commands, /exit ends")
        while (typed := _next_input()) is not None and typed != "/exit":
            try:
                self._take(typed)
            except LmflowError as error:
                console.note(str(error))

    def _take(self, typed: str) -> None:
        if not typed:
            return
        if not typed.startswith("/"):
            self._write(self._session.ask(typed))
            return
        name, _, argument = typed.partition(" ")
        if name not in self._commands:
            known = (*self._commands, "/exit")
            raise RequestError(f"unknown command {name}.{suggestion(name, known)} See /help")
        self._commands[name](argument.strip())

    def _write(self, answer: AnswerStream) -> None:
        self._tell_dropped()
        # What fails half-way must leave neither a question without its answer nor lose what was written.
        try:
            with _ctrl_c_cancels(answer):
                _show(answer)
        except KeyboardInterrupt:
            answer.finish_reason = "cancelled"
            console.show()
        finally:
            self._session.keep(answer)
        note_dropped(answer)
        if answer.finish_reason == "cancelled":
            console.note("the answer is cut short")
        elif not answer.text.strip():
            console.note("the model gave no answer; the conversation is as it was before")

    def _tell_dropped(self) -> None:
        if dropped := self._session.dropped:
            turns = "turn is" if dropped == 1 else f"{dropped} turns are"
            console.note(f"the oldest {turns} left out: the conversation is longer than the model's context")

    def _reset(self, _: str) -> None:
        self._session.reset()
        console.note("the conversation is forgotten")

    def _system(self, text: str) -> None:
        if text:
            self._session.system = None if text == "none" else text
        shown = self._session.system
        console.note("there is no system prompt" if shown is None else f"system prompt: {shown}")

    def _image(self, name: str) -> None:
        source = name if is_address(name) else str(_file_of(name))
        try:
            check_image(source)
        except ValueError as error:
            raise RequestError(str(error)) from error
        self._session.images.append(source)
        images = len(self._session.images)
        console.note(f"the next message shows {'the image' if images == 1 else f'{images} images'}")

    def _save(self, name: str) -> None:
        file = _file_of(name)
        if file.exists() and file not in self._saved:
            raise RequestError(f"{file} exists already; choose another name")
        save_messages(self._session.messages, file)
        self._saved.add(file)
        console.note(f"the conversation is in {file}")

    def _load(self, name: str) -> None:
        self._session.messages = load_messages(_file_of(name))
        console.note(f"{len(self._session.messages)} messages")

    def _regenerate(self, _: str) -> None:
        before = self._session.messages[-1:]
        self._write(self._session.ask_again())
        if before == self._session.messages[-1:]:
            console.note("the answer is the same; sample another with /params temperature=0.8")

    def _params(self, changes: str) -> None:
        values = {}
        for change in changes.split():
            name, equals, value = change.partition("=")
            if not equals:
                raise RequestError(f"{change}: write NAME=VALUE, such as temperature=0.3")
            values[name.replace("-", "_")] = value
        known = [field.name for field, _ in self._session.model.parameters()]
        for name in values:
            if name not in known:
                raise RequestError(f"there is no parameter {name!r}.{suggestion(name, known)} /params shows all")
        self._session.model = self._session.model.changed(**values)
        told = ((field.name, _shown(value)) for field, value in self._session.model.parameters())
        console.tell(console.pairs(told))

    def _help(self, _: str) -> None:
        console.tell(f"{console.pairs(_HELP.items())}\n{_MORE_LINES}\nCtrl-C stops an answer.")


def _shown(value: object) -> object:
    return ",".join(map(str, value)) if isinstance(value, tuple) else value


def _file_of(name: str) -> Path:
    if not name:
        raise RequestError("the name of a file is missing")
    return Path(name).expanduser()


def _edit_lines() -> None:
    """Let a person edit lines and get earlier ones back."""
    if sys.stdin.isatty():
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401


def _next_input() -> str | None:
    """Return what is typed next, without spaces around it, or None at the end."""
    try:
        return _input("> ")
    except EOFError:
        return None
    except KeyboardInterrupt:
        if not sys.stdin.isatty():
            raise
        print(file=sys.stderr)
        console.note("/exit or Ctrl-D ends")
        return ""


def _input(prompt: str) -> str:
    line = _line(prompt).rstrip()
    if line.lstrip().startswith(_QUOTES):
        return _quoted(line.lstrip().removeprefix(_QUOTES))
    lines = [line]
    while lines[-1].endswith("\\"):
        lines[-1] = lines[-1].removesuffix("\\")
        lines.append(_line(". ").rstrip())
    return "\n".join(lines).strip()


def _quoted(line: str) -> str:
    lines = []
    while not line.rstrip().endswith(_QUOTES):
        lines.append(line)
        line = _line(". ")
    lines.append(line.rstrip().removesuffix(_QUOTES))
    return "\n".join(lines).strip()


def _line(prompt: str) -> str:
    if sys.stdin.isatty() and sys.stdout.isatty():
        # Written by input() itself, as the line editor must know where the line begins.
        return input(prompt)
    print(prompt, end="", file=sys.stderr, flush=True)
    return input()


@contextlib.contextmanager
def _ctrl_c_cancels(answer: AnswerStream) -> Iterator[None]:
    """Let the first Ctrl-C end an answer between two of its tokens, and the second at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def cancel(*_: object) -> None:
        signal.signal(signal.SIGINT, before)
        answer.cancel()

    before = signal.signal(signal.SIGINT, cancel)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _show(answer: AnswerStream) -> None:
    if sys.stdout.isatty():
        print_markdown(answer)
    else:
        stream(answer)


def note_dropped(answer: AnswerStream) -> None:
    """Tell how much of the text a decoder with a window no longer saw at the end of an answer."""
    if answer.dropped_tokens:
        console.note(f"{answer.dropped_tokens} tokens between the first and the last are outside the attention window")


def stream(answer: AnswerStream) -> None:
    """Print an answer as it is written."""
    for piece in answer:
        console.show(piece, end="")
    console.show()
