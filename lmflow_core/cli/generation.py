"""``lmflow generate`` and ``lmflow chat``."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

from lmflow_core.cli.chat import ChatTerminal, note_dropped, stream
from lmflow_core.cli.command import SchemaCommand
from lmflow_core.cli.flags import Arguments
from lmflow_core.cli.results import print_json
from lmflow_core.config.request import Request
from lmflow_core.config.schema import CHAT, GENERATE, SERVED, Schema
from lmflow_core.contracts.command import ChatCommand, CommandSpec
from lmflow_core.contracts.settings import DecodingSettings, ImageSettings, PromptSettings
from lmflow_core.errors import LmflowError, RequestError
from lmflow_core.files.exclusive import exclusive, lock_of_file
from lmflow_core.generation.answers import Answer
from lmflow_core.generation.chat_model import ChatModelOpener, open_chat_model, opening
from lmflow_core.generation.history import shown
from lmflow_core.generation.prompts import read_prompts
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.report import console
from lmflow_core.workflows.batch import answer_file, check_answers, request_keys


def _generate(request: Request, catalogue: Catalogue, arguments: Arguments) -> None:
    asked = request.get(PromptSettings)
    if asked.prompts is not None and asked.output is not None:
        _answer_file(asked.prompts, asked.output, request, catalogue, arguments)
    else:
        _answer_prompt(asked, request, catalogue, arguments)


def _answer_prompt(asked: PromptSettings, request: Request, catalogue: Catalogue, arguments: Arguments) -> None:
    prompt = sys.stdin.read() if asked.prompt == "-" else asked.prompt
    if not prompt:
        raise RequestError("the prompt is empty")
    model = open_chat_model(request, catalogue, raw=asked.raw)
    try:
        answer = model.answer([*model.opening(), shown(prompt, asked.image)])
    except ValueError as error:
        raise RequestError(str(error)) from error
    if "json" in arguments.switches:
        print_json({"prompt": prompt, **_statistics(answer.finish())})
    else:
        stream(answer)
        _note_drafts(answer)
        note_dropped(answer)


def _note_drafts(answer: Answer) -> None:
    if answer.drafted:
        console.note(
            f"{answer.tokens} tokens in {answer.seconds:.1f} s, {answer.tokens_per_second:.1f} tokens/s; "
            f"{answer.acceptance_rate:.0%} of {answer.drafted} drafted tokens accepted, "
            f"{answer.tokens_per_pass:.2f} tokens per pass"
        )


def _answer_file(prompts: Path, output: Path, request: Request, catalogue: Catalogue, arguments: Arguments) -> None:
    asked = request.get(PromptSettings)
    conversations = read_prompts(prompts, opening(request.get(DecodingSettings)), raw=asked.raw)
    keys = request_keys(conversations, request.values())
    check_answers(output, keys, resume=asked.resume, overwrite=asked.overwrite)
    with exclusive(lock_of_file(output)):
        done = check_answers(output, keys, resume=asked.resume, overwrite=asked.overwrite)
        model = open_chat_model(request, catalogue, raw=asked.raw)
        report = answer_file(model, conversations, keys, output, done=done, batch_size=asked.batch_size)
    if "json" in arguments.switches:
        print_json({"output": str(output), **asdict(report), "tokens_per_second": round(report.tokens_per_second, 2)})
    else:
        before = f" ({report.resumed} were there)" if report.resumed else ""
        console.note(
            f"{report.answered} answers in {output}{before}: {report.tokens} tokens in {report.seconds:.1f} s, "
            f"{report.tokens_per_second:.1f} tokens/s"
        )
    if report.refused:
        raise LmflowError(f"{report.refused} prompts have no answer; their rows in {output} have an 'error'")


def _statistics(answer: Answer) -> dict[str, object]:
    return {
        "text": answer.text,
        "prompt_tokens": answer.prompt_tokens,
        "tokens": answer.tokens,
        "seconds": round(answer.seconds, 3),
        "tokens_per_second": round(answer.tokens_per_second, 2),
        "finish_reason": answer.finish_reason,
        **({"dropped_tokens": answer.dropped_tokens} if answer.dropped_tokens else {}),
        **_drafts(answer),
        **_logprobs(answer),
    }


def _drafts(answer: Answer) -> dict[str, object]:
    """Return how drafts fared, where the decoder made any."""
    if not answer.drafted:
        return {}
    return {
        "drafted": answer.drafted,
        "accepted": answer.accepted,
        "passes": answer.passes,
        "acceptance_rate": round(answer.acceptance_rate, 4),
        "tokens_per_pass": round(answer.tokens_per_pass, 3),
    }


def _logprobs(answer: Answer) -> dict[str, object]:
    """Return the probabilities of the sampled tokens, where the decoder's options asked for them."""
    told = [{"id": token.id, **asdict(token.logprob)} for token in answer.sampled if token.logprob is not None]
    return {"logprobs": told} if told else {}


def _chat(request: Request, catalogue: Catalogue, arguments: Arguments) -> None:
    images = [*map(str, request.get(ImageSettings).image)]
    ChatTerminal(open_chat_model(request, catalogue), images).run()


generate = SchemaCommand(GENERATE, _generate, summary="Answer one prompt, streaming to stdout, or a file of them.")
chat = SchemaCommand(CHAT, _chat, summary="Talk with a model. Ctrl-C stops an answer, /exit ends.")


def chat_command(spec: CommandSpec, target: ChatCommand) -> SchemaCommand:
    """Return the command of a plugin that works with a model that answers: the flags of ``chat`` and its own."""
    own = spec.options

    def run(request: Request, catalogue: Catalogue, arguments: Arguments) -> None:
        target(ChatModelOpener(request, catalogue), None if own is None else request.get(own))

    schema = Schema(spec.name, SERVED.settings if own is None else (*SERVED.settings, own), SERVED.selectors)
    return SchemaCommand(schema, run, summary=spec.summary)
