"""Many prompts to a JSONL file of answers, several at a time; what is written stays whole if the work is cut short."""

from __future__ import annotations

import hashlib
import json
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from lmflow_core.contracts.decoder import BatchLimits
from lmflow_core.contracts.examples import ImagePart, Message, Part, as_turns
from lmflow_core.contracts.generation import AnswerBatch
from lmflow_core.errors import OutputError, RequestError
from lmflow_core.files.lines import lines_behind
from lmflow_core.generation.answers import Answer
from lmflow_core.generation.chat_model import LoadedChatModel
from lmflow_core.report import console

# What may differ between the run that began an output and the one that goes on with it.
_FREE = ("prompts", "output", "resume", "overwrite", "batch_size")


@dataclass(frozen=True)
class BatchReport:
    """What was done: prompts answered and refused in this run, tokens sampled, and the time from first to last."""

    answered: int
    refused: int
    resumed: int
    tokens: int
    seconds: float

    @property
    def tokens_per_second(self) -> float:
        """Tokens sampled per second, over all prompts."""
        return self.tokens / self.seconds if self.seconds else 0.0


def _said(part: Part) -> str | list[str]:
    return [part.source] if isinstance(part, ImagePart) else part


def request_keys(conversations: Sequence[Sequence[Message]], options: Mapping[str, Any]) -> list[str]:
    """Return for each prompt a digest of it, its place and everything that decides its answer."""
    asked = {name: value for name, value in options.items() if name not in _FREE}
    shared = json.dumps(asked, sort_keys=True)
    turns = ([(message.role, *map(_said, message.parts)) for message in messages] for messages in conversations)
    texts = (f"{index}\n{shared}\n{json.dumps(said)}" for index, said in enumerate(turns))
    return [hashlib.sha256(text.encode()).hexdigest()[:16] for text in texts]


def check_answers(output: Path, keys: Sequence[str], *, resume: bool, overwrite: bool) -> int:
    """Return how many answers an output holds that a run goes on behind; 0 for a new one. Changes nothing.

    Raises:
        OutputError: the output is taken, or (to be resumed) was written for other prompts or options.
    """
    if overwrite or not output.exists() or not output.stat().st_size:
        return 0
    if not resume:
        raise OutputError(f"{output} exists already: add --resume to go on with it, or --overwrite to replace it")
    rows = _whole_lines(output)
    for number, line in enumerate(rows):
        if number >= len(keys) or _key(line) != keys[number]:
            raise OutputError(
                f"{output}, row {number + 1}: written for another prompt, model or options than these; "
                "go on with the same, or choose another --output"
            )
    return len(rows)


def _whole_lines(output: Path) -> list[bytes]:
    return output.read_bytes().split(b"\n")[:-1]


def _key(line: bytes) -> object:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row.get("request") if isinstance(row, dict) else None


def answer_file(
    model: LoadedChatModel,
    conversations: Sequence[Sequence[Message]],
    keys: Sequence[str],
    output: Path,
    *,
    done: int,
    batch_size: int,
) -> BatchReport:
    """Answer the prompts behind the first ``done`` and add a row for each to the output, in order.

    A row is written and flushed at once, whole. A prompt that does not fit the context or the template gets a row with
    ``error``.

    Raises:
        OutputError: the output cannot be written.
        LmflowError: the model fails.
    """
    started = time.perf_counter()
    rows = _rows(model, conversations, keys, done, batch_size)
    answered = tokens = 0
    whole = sum(len(line) + 1 for line in _whole_lines(output)[:done]) if done else 0
    with lines_behind(output, whole) as add:
        for row in console.progress(rows, "Answering", len(conversations) - done):
            add(json.dumps(row, ensure_ascii=False).encode() + b"\n")
            answered += "error" not in row
            tokens += row.get("tokens", 0)
    refused = len(conversations) - done - answered
    return BatchReport(answered, refused, done, tokens, time.perf_counter() - started)


def _rows(
    model: LoadedChatModel,
    conversations: Sequence[Sequence[Message]],
    keys: Sequence[str],
    done: int,
    batch_size: int,
) -> Iterator[dict[str, Any]]:
    batch = model.open_batch(BatchLimits(answers=batch_size))
    asked: deque[tuple[int, Answer | str]] = deque()

    def row(told: Mapping[str, Any]) -> dict[str, Any]:
        index, _ = asked.popleft()
        return {"index": index, "messages": as_turns(conversations[index]), **told, "request": keys[index]}

    def refused() -> Iterator[dict[str, Any]]:
        while asked and isinstance(asked[0][1], str):
            yield row({"error": asked[0][1]})

    def answers() -> Iterator[Answer]:
        for index in range(done, len(conversations)):
            prepared = _prepared(model, batch, conversations[index], index)
            asked.append((index, prepared))
            if isinstance(prepared, Answer):
                yield prepared

    for answer in batch.write(answers()):
        yield from refused()
        yield row(_told(cast(Answer, answer)))
    yield from refused()


def _prepared(model: LoadedChatModel, batch: AnswerBatch, messages: Sequence[Message], index: int) -> Answer | str:
    """Return the answer to be written, or what is wrong with the prompt."""
    seeded = replace(model, settings=replace(model.settings, seed=derived_seed(model.settings.seed, index)))
    try:
        answer = seeded.answer(messages)
        batch.check(answer)
    except RequestError as error:
        return str(error)
    except ValueError as error:
        return f"this conversation cannot be answered: {error}"
    return answer


def derived_seed(seed: int, index: int) -> int:
    """Return the seed of one prompt of a file, which depends on nothing but the run's seed and the prompt's place."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{index}".encode()).digest()[:4], "big")


def _told(answer: Answer) -> dict[str, Any]:
    return {
        "answer": answer.text,
        "finish_reason": answer.finish_reason,
        "prompt_tokens": answer.prompt_tokens,
        "tokens": answer.tokens,
        "seconds": round(answer.seconds, 3),
        **({"dropped_tokens": answer.dropped_tokens} if answer.dropped_tokens else {}),
    }
