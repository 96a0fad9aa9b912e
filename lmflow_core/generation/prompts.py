"""Prompts from a file: JSONL rows with ``prompt`` or ``messages``, or plain text with one prompt a line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from lmflow_core.contracts.examples import Message, Prompt
from lmflow_core.contracts.source import Row
from lmflow_core.data.files import suffix
from lmflow_core.data.image_paths import ImageFolders
from lmflow_core.data.rows import read_rows
from lmflow_core.errors import DataError
from lmflow_core.generation.history import read_messages


def read_prompts(file: Path, opening: Sequence[Message] = (), *, raw: bool = False) -> list[list[Message]]:
    """Return the conversations to answer, each ending with a message of the user.

    Args:
        file: ``.json`` and ``.jsonl`` files hold rows, any other holds text.
        opening: what conversations without a system prompt of their own begin with.
        raw: prompts are used without a template, so that rows must not hold several messages.

    Raises:
        DataError: the file cannot be read, holds no prompt, or a row is none; tells the row.
    """
    conversations = [[*opening, *messages] if messages[0].role != "system" else messages for messages in _read(file)]
    if not conversations:
        raise DataError("the file holds no prompts", file=file)
    if raw and any(len(messages) > 1 for messages in conversations):
        raise DataError("--raw takes plain prompts, without 'messages' and --system", file=file)
    return conversations


def _read(file: Path) -> Iterator[list[Message]]:
    if suffix(file) not in (".json", ".jsonl"):
        yield from ([Message("user", line)] for line in _lines(file) if line.strip())
        return
    for row in read_rows(file):
        try:
            yield _conversation(row)
        except ValueError as error:
            raise DataError(str(error), file=file, row=row.number) from error


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", file=file) from error
    except UnicodeDecodeError as error:
        raise DataError("not UTF-8; convert it to UTF-8", file=file) from error


def _conversation(row: Row) -> list[Message]:
    if ("prompt" in row.value) == ("messages" in row.value):
        raise ValueError("a row must have either 'prompt' or 'messages'")
    if "prompt" in row.value:
        prompt = row.value["prompt"]
        if not isinstance(prompt, str) or not prompt:
            raise ValueError("'prompt' must be text, and not empty")
        return [Message("user", prompt)]
    prompt_of = Prompt(tuple(read_messages(row.value["messages"])))
    messages = [*ImageFolders(row.file).placed(prompt_of).messages]
    if messages[-1].role != "user":
        raise ValueError("the last message must be the user's, as it is the one to answer")
    return messages
