"""Templates, of which the sound ones keep every rule; each of the others has the fault its class names."""

import json

from lmflow_core.api import ChatTemplate

_PIRATE = {
    "begin": "{bos}",
    "system": "Ship: {content}\n",
    "user": "Landlubber: {content}\n",
    "assistant_header": "Captain: ",
    "assistant": "{content}{eos}",
    "assistant_end": "\n",
    "stop": ("{eos}",),
}
SOUND = ChatTemplate(**_PIRATE)


class _Changed(ChatTemplate):
    """Renders otherwise than it is described."""

    def bind(self, bos, eos):
        return type(self)(**vars(super().bind(bos, eos)))

    def changed(self, segment):
        return segment

    def render(self, messages, add_generation_prompt, tools=()):
        return tuple(map(self.changed, super().render(messages, add_generation_prompt, tools)))


class _TrainsHeader(_Changed):
    """Trains on the header before an answer."""

    def changed(self, segment):
        return segment._replace(trainable=segment.trainable or "Captain" in segment.text)


class _TrainsQuestions(_Changed):
    """Trains on what the user writes."""

    def changed(self, segment):
        return segment if segment.control else segment._replace(trainable=True)


class _TrainsNothing(_Changed):
    """Trains on nothing."""

    def changed(self, segment):
        return segment._replace(trainable=False)


class _TrainsContentOnly(_Changed):
    """Trains on the answer without its stop, so that the model never ends."""

    def changed(self, segment):
        return segment._replace(trainable=segment.trainable and not segment.control)


class _TrustsContents(_Changed):
    """Lets contents become control tokens."""

    def changed(self, segment):
        return segment._replace(control=True)


class _OtherJinja(_Changed):
    """Has a Jinja text without the line break behind an answer."""

    def to_jinja(self):
        return ChatTemplate(**{**vars(self), "assistant_end": ""}).to_jinja()


class _OwnVariables(_Changed):
    """Has a Jinja text that asks for a variable that nobody gives."""

    def to_jinja(self):
        return super().to_jinja() + "{{ ship }}"


class _FixedFingerprint(_Changed):
    """Has one fingerprint, whatever it is bound to."""

    @property
    def fingerprint(self):
        return "pirate"


class _FleetingFingerprint(_Changed):
    """Has a fingerprint that another process does not find."""

    @property
    def fingerprint(self):
        return str(hash(repr(self)))


class _DropsSystem(_Changed):
    """Leaves a system prompt out without a word."""

    def render(self, messages, add_generation_prompt, tools=()):
        said = [message for message in messages if message.role != "system"]
        return super().render(said, add_generation_prompt, tools)


class _IgnoresFlags(_Changed):
    """Trains on answers that are marked as not to be trained on."""

    def render(self, messages, add_generation_prompt, tools=()):
        told = [type(message)(message.role, message.content, None, message.tool_calls) for message in messages]
        return super().render(told, add_generation_prompt, tools)


class _ReadsJson(_Changed):
    """Takes every answer for a call."""

    def read_calls(self, text, tools=()):
        return "", (json.dumps(text),)


class _Slow(_Changed):
    """Has a Jinja text whose time grows without bounds."""

    def to_jinja(self):
        loops = "".join(f"{{%- for {name} in messages -%}}" for name in "abcd")
        return loops + "{%- endfor -%}" * 4 + super().to_jinja()


TRAINS_HEADER = _TrainsHeader(**_PIRATE)
TRAINS_QUESTIONS = _TrainsQuestions(**_PIRATE)
TRAINS_NOTHING = _TrainsNothing(**_PIRATE)
TRAINS_CONTENT_ONLY = _TrainsContentOnly(**_PIRATE)
TRUSTS_CONTENTS = _TrustsContents(**_PIRATE)
OTHER_JINJA = _OtherJinja(**_PIRATE)
OWN_VARIABLES = _OwnVariables(**_PIRATE)
FIXED_FINGERPRINT = _FixedFingerprint(**_PIRATE)
FLEETING_FINGERPRINT = _FleetingFingerprint(**_PIRATE)
DROPS_SYSTEM = _DropsSystem(**_PIRATE)
IGNORES_FLAGS = _IgnoresFlags(**_PIRATE)
READS_JSON = _ReadsJson(**_PIRATE)
SLOW = _Slow(**_PIRATE)
# Has no stop though its answers end with one.
FORGETS_STOP = ChatTemplate(**{**_PIRATE, "stop": ()})
# Ends its answers with another text than it says.
OTHER_STOP = ChatTemplate(**{**_PIRATE, "assistant": "{content}<end>", "stop": ("<|end|>",)})
