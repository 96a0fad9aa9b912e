"""The page: its components, and what each of them does. What they do it with is in ``conversations``."""

from __future__ import annotations

import html
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

# Read when gradio is imported: nothing is told to anybody.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr

from lmflow_core.api import ImagePart, LmflowError, OptionField
from lmflow_webui.conversations import View, VisitorConversation, WebChat
from lmflow_webui.pictures import CHOOSER, LISTEN, PREVIEW, picture_html, read_pictures

_SAVE = """(text) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], {type: "application/jsonl"}));
    link.download = "conversation.jsonl";
    link.click();
    URL.revokeObjectURL(link.href);
}"""
# A number with a lower bound alone, such as a temperature, gets a slider up to here.
_UPPER = 2.0
# Visitors that wait for their answers; more are told to come back.
_LONGEST_QUEUE = 64


def make_page(chat: WebChat) -> gr.Blocks:
    """Return the page. One answer is written at a time; other visitors wait, up to a limit."""
    with gr.Blocks(title="LMFlow", analytics_enabled=False) as page:
        parameters = gr.State({})
        with gr.Row():
            model = gr.Dropdown(chat.choices("model"), value=chat.chosen["model"], label="Model", elem_id="model")
            decoder = gr.Dropdown(
                chat.choices("decoder"), value=chat.chosen["decoder"], label="Decoder", elem_id="decoder"
            )
        # Text is shown as it is: what a visitor types or a model answers never becomes HTML, a picture or a link.
        chatbot = gr.Chatbot(
            render_markdown=False, label="Conversation", elem_id="chat", buttons=[], latex_delimiters=[]
        )
        status = gr.Textbox(label="Last answer", interactive=False, elem_id="status")
        message = gr.Textbox(label="Message", placeholder="Shift-Enter begins a line", lines=2, elem_id="message")
        with gr.Row(visible=chat.sees) as chooser:
            gr.HTML(CHOOSER)
        pictures = gr.Textbox(visible="hidden", elem_id="pictures")
        with gr.Row():
            send = gr.Button("Send", variant="primary", elem_id="send")
            stop = gr.Button("Stop", variant="stop", elem_id="stop")
            again = gr.Button("Regenerate", elem_id="again")
            reset = gr.Button("Reset", elem_id="reset")
            save = gr.Button("Download history", elem_id="save")
        history = gr.Textbox(visible="hidden", elem_id="history")
        with gr.Accordion("Parameters", open=False):

            @gr.render(inputs=[model, decoder], triggers=[page.load, model.change, decoder.change])
            def show_parameters(*_: str) -> None:
                for field, value in chat.parameters():
                    control = _control(field, value)
                    control.change(_setter(field.name), [control, parameters], parameters, show_progress="hidden")

        outputs, names = [chatbot, status], [model, decoder]
        written: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "model"}
        gr.on(
            [send.click, message.submit],
            _ask(chat),
            [message, pictures, parameters],
            [message, pictures, *outputs],
            **written,
        )
        again.click(_again(chat), parameters, outputs, **written)
        stop.click(_stop(chat), None, None, queue=False)
        reset.click(_reset(chat), None, outputs, queue=False)
        save.click(_history(chat), None, history, queue=False).then(None, history, None, js=_SAVE)
        gr.on([each.input for each in names], _choose(chat), names, [*names, parameters, chooser, pictures], **written)
        page.load(lambda: gr.update(visible=chat.sees), None, chooser, queue=False)
        page.load(None, None, None, js=LISTEN)
        pictures.change(None, pictures, None, js=PREVIEW)
        page.unload(_leave(chat))
    page.queue(max_size=_LONGEST_QUEUE)
    return page


def theme() -> Any:
    """Return a theme whose fonts are those of the visitor's machine: the page fetches nothing from elsewhere."""
    return gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])


def _control(field: OptionField, value: Any) -> Any:
    label, info = field.name.replace("_", " "), field.help
    common = {"value": value, "label": label, "info": info, "elem_id": f"parameter-{field.name}"}
    if field.choices:
        return gr.Dropdown(list(field.choices), **common)
    if field.type is bool:
        return gr.Checkbox(**common)
    lower = field.above if field.minimum is None else field.minimum
    if field.type is float and lower is not None and not field.optional:
        upper = field.maximum if field.maximum is not None else max(_UPPER, value)
        return gr.Slider(lower, upper, step=0.01, **common)
    if field.type in (int, float):
        return gr.Number(precision=0 if field.type is int else None, minimum=field.minimum, **common)
    return gr.Textbox(**common)


def _setter(name: str) -> Callable[..., dict[str, Any]]:
    return lambda value, parameters: {**parameters, name: value}


def _shown(view: View) -> tuple[list[dict[str, str]], str]:
    return [{"role": role, "content": _shown_content(content)} for role, content in view.turns], view.status


def _shown_content(content: str | tuple[str | ImagePart, ...]) -> str:
    # Without Markdown, gradio still takes a text for HTML.
    parts = (content,) if isinstance(content, str) else content
    return "".join(
        picture_html(part.source) if isinstance(part, ImagePart) else html.escape(part, quote=False) for part in parts
    )


def _conversation(chat: WebChat, request: gr.Request) -> VisitorConversation:
    return chat.conversation(str(request.session_hash))


def _ask(chat: WebChat) -> Callable[..., Iterator[Any]]:
    def ask(message: str, pictures: str, parameters: Mapping[str, Any], request: gr.Request) -> Iterator[Any]:
        if not message.strip():
            raise gr.Error("The message is empty.")
        with _Told():
            images = read_pictures(pictures)
            for view in _conversation(chat, request).ask(message, chat.model, parameters, images):
                yield "", "", *_shown(view)

    return ask


def _again(chat: WebChat) -> Callable[..., Iterator[Any]]:
    def again(parameters: Mapping[str, Any], request: gr.Request) -> Iterator[Any]:
        with _Told():
            for view in _conversation(chat, request).ask_again(chat.model, parameters):
                yield _shown(view)

    return again


def _stop(chat: WebChat) -> Callable[[gr.Request], None]:
    def stop(request: gr.Request) -> None:
        _conversation(chat, request).stop()

    return stop


def _reset(chat: WebChat) -> Callable[[gr.Request], Any]:
    def reset(request: gr.Request) -> Any:
        return _shown(_conversation(chat, request).reset(chat.model))

    return reset


def _history(chat: WebChat) -> Callable[[gr.Request], str]:
    def history(request: gr.Request) -> str:
        return _conversation(chat, request).history()

    return history


def _choose(chat: WebChat) -> Callable[[str, str], Any]:
    def choose(model: str, decoder: str) -> Any:
        with _Told():
            chat.choose(model=model, decoder=decoder)
        return model, decoder, {}, gr.update(visible=chat.sees), ""

    return choose


def _leave(chat: WebChat) -> Callable[[gr.Request], None]:
    def leave(request: gr.Request) -> None:
        chat.leave(str(request.session_hash))

    return leave


class _Told:
    """Shows an error of LMFlow to the visitor."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, LmflowError):
            raise gr.Error(html.escape(str(error))) from error  # gradio takes its text for HTML
