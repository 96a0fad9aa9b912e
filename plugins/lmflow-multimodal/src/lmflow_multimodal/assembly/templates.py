"""A chat template that takes images, made of one that takes texts."""

from __future__ import annotations

IMAGE = "<image>"

# Contents that are lists of parts become texts before the template sees them; those that are texts stay as they are.
_BEFORE = (
    "{%- set shown = namespace(turns=[], text='') -%}"
    "{%- for message in messages -%}"
    "{%- if message['content'] is defined and message['content'] is iterable"
    " and message['content'] is not string and message['content'] is not mapping -%}"
    "{%- set shown.text = '' -%}"
    "{%- for part in message['content'] -%}"
    "{%- if part['type'] == 'image' -%}{%- set shown.text = shown.text + '" + IMAGE + "' -%}"
    "{%- elif part['type'] == 'text' -%}{%- set shown.text = shown.text + part['text'] -%}{%- endif -%}"
    "{%- endfor -%}"
    "{%- set shown.turns = shown.turns + [dict(message, content=shown.text)] -%}"
    "{%- else -%}{%- set shown.turns = shown.turns + [message] -%}{%- endif -%}"
    "{%- endfor -%}"
    "{%- set messages = shown.turns -%}"
)


def with_images(template: str) -> str:
    """Return a template in Jinja that writes ``<image>`` for each image, and of texts what the given one writes."""
    return _BEFORE + template
