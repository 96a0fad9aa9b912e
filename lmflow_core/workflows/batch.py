"""Many prompts to a JSONL file of answers, in batches; what is written stays whole whenever the work is cut short."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lmflow_core.contracts.decoder import DecodeStep
from lmflow_core.contracts.examples import Message, as_turns
from lmflow_core.contracts.model import LanguageModel
from lmflow_core.errors import OutputError
from lmflow_core.generation.answers import Answer
from lmflow_core.generation.chat_model import Talker
from lmflow_core.report import console

# What may differ between the run that began an output and the one that goes on with it.
_FREE = ("prompts", "output", "resume", "overwrite", "batch_size")


@dataclass(frozen=True)
class BatchReport:
    """What was done: prompts answered and refused in this run, tokens drawn, and the time from first to last."""

    answered: int
    refused: int
    resumed: int
    tokens: int
    seconds: float

    @property
    def tokens_per_second(self) -> float:
        """Tokens drawn per second, over all prompts."""
        return self.tokens / self.seconds if self.seconds else 0.0


def request_keys(conversations: Sequence[Sequence[Message]], options: Mapping[str, Any]) -> list[str]:
    """Return for each prompt a digest of it, its place and everything that decides its answer."""
    asked = {name: value for name, value in options.items() if name not in _FREE}
    shared = json.dumps(asked, sort_keys=True)
    turns = ([(message.role, message.content) for message in messages] for messages in conversations)
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
    talker: Talker,
    conversations: Sequence[Sequence[Message]],
    keys: Sequence[str],
    output: Path,
    *,
    done: int,
    batch_size: int,
) -> BatchReport:
    """Answer the prompts behind the first ``done`` and add a row for each to the output, in order.

    A row is written and flushed at once, whole. A prompt that cannot be answered gets a row with ``error``.

    Raises:
        OutputError: the output cannot be written.
        LmflowError: the model fails.
    """
    started = time.perf_counter()
    rows: Iterable[dict[str, Any]] = _rows(talker, conversations, keys, done, batch_size)
    answered = tokens = 0
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with output.open("ab") as file:
            file.truncate(sum(len(line) + 1 for line in _whole_lines(output)[:done]))
            for row in console.progress(rows, "Answering", len(conversations) - done):
                file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
                file.flush()
                answered += "error" not in row
                tokens += row.get("tokens", 0)
            os.fsync(file.fileno())
    except OSError as error:
        raise OutputError(f"{output} cannot be written: {error.strerror or error}") from error
    refused = len(conversations) - done - answered
    return BatchReport(answered, refused, done, tokens, time.perf_counter() - started)


def _rows(
    talker: Talker, conversations: Sequence[Sequence[Message]], keys: Sequence[str], done: int, batch_size: int
) -> Iterator[dict[str, Any]]:
    for start in range(done, len(conversations), batch_size):
        indices = range(start, min(start + batch_size, len(conversations)))
        prepared = [_prepared(talker, conversations[index], index) for index in indices]
        written = iter(_finished(talker, [answer for answer in prepared if isinstance(answer, Answer)]))
        for index, answer in zip(indices, prepared, strict=True):
            told = {"error": answer} if isinstance(answer, str) else _told(next(written))
            yield {"index": index, "messages": as_turns(conversations[index]), **told, "request": keys[index]}


def _prepared(talker: Talker, messages: Sequence[Message], index: int) -> Answer | str:
    """Return the answer to be written, or what is wrong with the prompt."""
    seeded = replace(talker, settings=replace(talker.settings, seed=derived_seed(talker.settings.seed, index)))
    try:
        answer = seeded.answer(messages)
    except ValueError as error:
        return f"the template cannot render this conversation: {error}"
    context = talker.context_length
    if context is not None and answer.prompt_tokens + talker.settings.max_new_tokens > context:
        return (
            f"the prompt has {answer.prompt_tokens} tokens and --max-new-tokens is {talker.settings.max_new_tokens}; "
            f"the context of the model holds {context}: shorten one of them"
        )
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


def _finished(talker: Talker, answers: Sequence[Answer]) -> Iterator[Answer]:
    """Write some answers to their ends: together where the decoder can, else one after the other."""
    decode_many = getattr(talker.decoder, "decode_many", None)
    if decode_many is None or len(answers) < 2:
        yield from (answer.finish() for answer in answers)
        return
    started = time.perf_counter()
    steps: list[list[DecodeStep]] = [[] for _ in answers]
    seconds = [0.0] * len(answers)
    drawn = decode_many(
        talker.model,
        [answer.prompt for answer in answers],
        max_new_tokens=talker.settings.max_new_tokens,
        stop_ids=answers[0].stop_ids,
        seeds=[answer.settings.seed for answer in answers],
    )
    for position, step in drawn:
        steps[position].append(step)
        seconds[position] = time.perf_counter() - started
    for answer, taken, until in zip(answers, steps, seconds, strict=True):
        answer.decoder = _Recorded(taken)
        answer.finish()
        answer.seconds = until
        yield answer


class _Recorded:
    """A decoder that gives the steps another one took."""

    def __init__(self, steps: Sequence[DecodeStep]) -> None:
        self._steps = steps

    def decode(self, model: LanguageModel, prompt: Sequence[int], **_: object) -> Iterator[DecodeStep]:
        """Yield the steps."""
        yield from self._steps
