"""``lmflow generate`` and ``lmflow chat``."""

from __future__ import annotations

import sys
from dataclasses import asdict

import click

from lmflow_core import console
from lmflow_core.answers import Answer
from lmflow_core.cli.flags import Arguments
from lmflow_core.cli.shaped import ShapedCommand, print_json
from lmflow_core.contracts import TalkingCommand
from lmflow_core.errors import RequestError
from lmflow_core.job import CHAT, GENERATE, Request, Shape
from lmflow_core.registry import Catalogue
from lmflow_core.settings import PromptSettings
from lmflow_core.specs import CommandSpec
from lmflow_core.workflows.generate import Talker, open_talker


def _generate(request: Request, catalogue: Catalogue, arguments: Arguments) -> None:
    asked = request.get(PromptSettings)
    prompt = sys.stdin.read() if asked.prompt == "-" else asked.prompt
    if not prompt:
        raise RequestError("the prompt is empty")
    talker = open_talker(request, catalogue, raw=asked.raw)
    answer = talker.ask(prompt)
    if "json" in arguments.switches:
        print_json({"prompt": prompt, **_statistics(answer.finish())})
    else:
        _stream(answer)


def _statistics(answer: Answer) -> dict[str, object]:
    return {
        "text": answer.text,
        "prompt_tokens": answer.prompt_tokens,
        "tokens": answer.tokens,
        "seconds": round(answer.seconds, 3),
        "tokens_per_second": round(answer.tokens_per_second, 2),
        "finish_reason": answer.finish_reason,
        **_logprobs(answer),
    }


def _logprobs(answer: Answer) -> dict[str, object]:
    """Return the probabilities of the drawn tokens, where the decoder's options asked for them."""
    told = [{"id": token.id, **asdict(token.logprob)} for token in answer.drawn if token.logprob is not None]
    return {"logprobs": told} if told else {}


def _stream(answer: Answer) -> None:
    for piece in answer:
        click.echo(piece, nl=False)
        sys.stdout.flush()
    click.echo()


def _chat(request: Request, catalogue: Catalogue, arguments: Arguments) -> None:
    talker = open_talker(request, catalogue)
    console.note("/reset forgets the conversation, /exit ends")
    while (line := _next_line()) is not None:
        if line == "/exit":
            return
        if line == "/reset":
            talker.reset()
            console.note("the conversation is forgotten")
        elif line.startswith("/"):
            console.note(f"unknown command {line}; there are /reset and /exit")
        elif line:
            _turn(talker, line)


def _next_line() -> str | None:
    try:
        print("> ", end="", file=sys.stderr, flush=True)
        return input().strip()
    except EOFError:
        return None


def _turn(talker: Talker, line: str) -> None:
    answer = talker.ask(line)
    try:
        _stream(answer)
    except KeyboardInterrupt:
        click.echo()
        console.note("the answer is cut short")
    talker.keep(answer)


generate = ShapedCommand(GENERATE, _generate, summary="Answer one prompt; the answer streams to stdout.")
chat = ShapedCommand(CHAT, _chat, summary="Talk with a model. Ctrl-C stops an answer, /exit ends.")


def talking_command(spec: CommandSpec, target: TalkingCommand) -> ShapedCommand:
    """Return the command of a plugin that works with a model that answers: the flags of ``chat`` and its own."""
    own = spec.options

    def run(request: Request, catalogue: Catalogue, arguments: Arguments) -> None:
        target(lambda: open_talker(request, catalogue), None if own is None else request.get(own))

    shape = Shape(spec.name, CHAT.settings if own is None else (*CHAT.settings, own), CHAT.selectors)
    return ShapedCommand(shape, run, summary=spec.summary)
