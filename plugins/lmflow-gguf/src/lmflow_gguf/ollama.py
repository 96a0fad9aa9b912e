"""Export for Ollama: a GGUF file and a Modelfile with template, parameters and system prompt.

Ollama's templates are Go programs, not Jinja. Ours is made from what the model's own template renders for a few
conversations, so it stands for templates in which every turn is written alike; another one is refused.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from lmflow_core.api import ExportReport, Message, ModelError
from lmflow_gguf.convert import Source
from lmflow_gguf.export import GgufWriter, model_source
from lmflow_gguf.options import OllamaOptions
from lmflow_transformers.api import CausalModel

# Ollama sets memory aside for the whole context; a user who has it can ask for more.
_LONGEST_CONTEXT = 8192
_A, _B, _S = "\u241eA\u241e", "\u241eB\u241e", "\u241eS\u241e"


class OllamaExporter:
    """Writes a GGUF file and a Modelfile."""

    def __init__(self, options: OllamaOptions | None = None) -> None:
        self._options = options or OllamaOptions()

    def export(self, model: CausalModel, folder: Path, chat_template: str | None) -> ExportReport:
        """Write both files.

        Raises:
            ModelError: the model has no form in GGUF, or its template none in Ollama.
        """
        options = self._options
        if model.media is not None:
            raise ModelError(f"{model.reference} sees, and no Modelfile is written of it: export it with --format gguf")
        with model_source(model, folder, chat_template) as source:
            file = folder / f"{source.name}-{options.type}.gguf"
            text = modelfile(file.name, source, model, options)
            writer = GgufWriter(model, source, folder, options)
            writer.write(options.type, file)
            writer.clean()
        (folder / "Modelfile").write_text(text, encoding="utf-8")
        return ExportReport({path.name: path.stat().st_size for path in (file, folder / "Modelfile")})


def modelfile(gguf: str, source: Source, model: CausalModel, options: OllamaOptions) -> str:
    """Return the text of a Modelfile.

    Raises:
        ModelError: the model has no chat template, or one that Ollama's form cannot express.
    """
    inner = model.tokenizer.inner
    inner.chat_template = inner.chat_template or source.chat_template
    template, stops = go_template(model)
    lines = [f"FROM ./{gguf}", f'TEMPLATE """{template}"""']
    if options.ollama_system is not None:
        lines.append(f"SYSTEM {_quoted(options.ollama_system)}")
    lines += [f"PARAMETER stop {json.dumps(stop, ensure_ascii=False)}" for stop in stops]
    if options.ollama_temperature is not None:
        lines.append(f"PARAMETER temperature {options.ollama_temperature}")
    if model.context_length:
        lines.append(f"PARAMETER num_ctx {min(model.context_length, _LONGEST_CONTEXT)}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    if '"""' in text:
        raise ModelError('a system prompt with """ in it has no form in a Modelfile')
    return f'"""{text}"""'


def go_template(model: CausalModel) -> tuple[str, list[str]]:
    """Return the model's chat template as a Go template, and the texts that end an answer.

    Raises:
        ModelError: the model has no template, or its turns are not all written alike.
    """
    user, assistant, system = Message("user", _A), Message("assistant", _B), Message("system", _S)
    alone = _rendered(model, [user])
    opening, closing = alone.split(_A)
    turn = _rendered(model, [user, assistant, user])
    if not turn.startswith(f"{alone}{_B}"):
        raise ModelError("the chat template writes earlier turns in another way, which Ollama's form cannot express")
    after, _, last = turn.removeprefix(f"{alone}{_B}").partition(_A)
    if last != closing:
        raise ModelError("the chat template writes turns in different ways, which Ollama's form cannot express")
    with_system = model.tokenizer.render_chat([system, user], True)
    stops = _stops(model, after)
    # The token that opens every text is put there by Ollama itself.
    bos = model.tokenizer.bos or ""
    opening = opening.removeprefix(bos)
    end, repeated = _split_after(opening, after, stops)
    head = _head(opening, closing, repeated, with_system and with_system.removeprefix(bos))
    return head + _turns(repeated, closing, end), stops


def _rendered(model: CausalModel, messages: Sequence[Message]) -> str:
    text = model.tokenizer.render_chat(messages, True)
    if text is None:
        raise ModelError("the model has no chat template, which a Modelfile needs")
    return text


def _head(opening: str, closing: str, repeated: str, with_system: str | None) -> str:
    """Return what stands before the first turn: with a system prompt where one is given, else as the model has it."""
    first = _literal(opening.removesuffix(repeated))
    if with_system is None or _S not in with_system:
        return first
    before, between = with_system.removesuffix(f"{_A}{closing}").split(_S)
    given = f"{_literal(before)}{{{{ .System }}}}{_literal(between.removesuffix(repeated))}"
    return f"{{{{ if .System }}}}{given}{{{{ else }}}}{first}{{{{ end }}}}"


def _turns(opening: str, closing: str, end: str) -> str:
    return (
        f'{{{{ range $i, $m := .Messages }}}}{{{{ if eq $m.Role "user" }}}}{_literal(opening)}{{{{ $m.Content }}}}'
        f'{_literal(closing)}{{{{ else if eq $m.Role "assistant" }}}}{{{{ $m.Content }}}}{_literal(end)}'
        "{{ end }}{{ end }}"
    )


def _split_after(opening: str, after: str, stops: Sequence[str]) -> tuple[str, str]:
    """Split what follows an answer into the answer's end and the opening of the next turn, which also opens the first.

    The answer ends behind the token that stops it and the space after that, where such a split is possible.
    """
    stop = next((stop for stop in stops if stop in after), "")
    behind = after.partition(stop)[2] if stop else after
    preferred = len(after) - len(behind.lstrip())
    for start in (preferred, *range(len(after) + 1)):
        if opening.endswith(after[start:]):
            return after[:start], after[start:]
    return after, ""


def _literal(text: str) -> str:
    return text.replace("{{", '{{ "{{" }}')


def _stops(model: CausalModel, after: str) -> list[str]:
    """Return the control token that ends an answer, as the template and as the tokenizer have it."""
    control = model.tokenizer.control_tokens
    ends = [token for token in control if after.lstrip("\n ").startswith(token)]
    found = [max(ends, key=len)] if ends else []
    if model.tokenizer.eos and model.tokenizer.eos not in found:
        found.append(model.tokenizer.eos)
    return found
