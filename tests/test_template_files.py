"""A user's own template from a file: what YAML may say, and what each mistake is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmflow_core.contracts.examples import Message
from lmflow_core.errors import OptionError, RequestError
from lmflow_core.templates import ChatTemplate, Reasoning, Tools
from lmflow_core.templates.files import described, is_template_file, load_template_file
from lmflow_core.templates.packaged import packaged_template
from lmflow_core.testing.tiny import make_tokenizer
from lmflow_transformers.tokenizers import TransformersTokenizer

MINE = """
begin: "{bos}"
system: "System: {content}\\n"
user: |
  Question: {content}
assistant_header: "Answer: "
assistant: "{content}{eos}"
stop: ["{eos}"]
strip: [user]
default_system: null
reasoning:
  text: "({content}) "
  always: true
tools:
  call: "{name}{arguments}"
  result: "{content};"
  indent: 2
"""


def test_every_field_can_be_said() -> None:
    assert described(MINE, "mine.yaml") == ChatTemplate(
        begin="{bos}",
        system="System: {content}\n",
        user="Question: {content}\n",
        assistant_header="Answer: ",
        assistant="{content}{eos}",
        stop=("{eos}",),
        strip=("user",),
        reasoning=Reasoning(text="({content}) ", always=True),
        tools=Tools(call="{name}{arguments}", result="{content};", indent=2),
    )


GOOD = "user: 'U{content}'\nassistant: 'A{content}'\nstop: [x]\n"
BAD = {
    "[1, 2]": "mine.yaml: a template is a mapping of its texts, not [1, 2]",
    "user: [": "mine.yaml is not YAML: ",
    "user: 'U{content}'": "mine.yaml: assistant, stop must be given",
    GOOD + "asistant_end: x": "mine.yaml: unknown key 'asistant_end'. Did you mean 'assistant_end'? Known: user, ",
    GOOD + "begin: 3": "mine.yaml: begin must be a text, not 3",
    GOOD + "strip: user": "mine.yaml: strip must be a list of texts, not 'user'",
    GOOD + "system_in_user: 1": "mine.yaml: system_in_user must be true or false, not 1",
    GOOD + "system: none": "mine.yaml: 'system' of a template must hold {content}, once: 'none'",
    GOOD + "begin: null": "mine.yaml: begin must be a text, not None",
    GOOD + "tools: x": "mine.yaml: tools: a template is a mapping of its texts, not 'x'",
    GOOD + "tools: {call: '{name}{arguments}'}": "mine.yaml: tools: result must be given",
    GOOD + "tools: {call: '{name}', result: '{content}'}": (
        "mine.yaml: tools: 'call' of a template must hold {name} and {arguments}, once: '{name}'"
    ),
    GOOD + "reasoning: {text: '{content}', opening: x}": (
        "mine.yaml: reasoning: the text of reasoning must begin with its opening 'x': '{content}'"
    ),
}


@pytest.mark.parametrize("text", BAD)
def test_mistakes_are_told(text: str) -> None:
    with pytest.raises(OptionError) as caught:
        described(text, "mine.yaml")
    assert str(caught.value).startswith(BAD[text])


def test_what_is_a_file() -> None:
    assert all(map(is_template_file, ("mine.yaml", "./m.yml", "/a/b.jinja", "c.j2")))
    assert not any(map(is_template_file, ("qwen2.5", "chatml", "templates:chatml", "tokenizer")))


def test_a_jinja_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.jinja"
    file.write_text(
        "{% for m in messages %}{{ m.role + ':' + m.content + eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )
    tokenizer = TransformersTokenizer(make_tokenizer())
    template = load_template_file(str(file), tokenizer)
    assert template.stop == ("<|im_end|>",)
    segments = template.render((Message("user", "u"), Message("assistant", "a")), False)
    assert [segment.text for segment in segments if segment.trainable] == ["a", "<|im_end|>"]
    with pytest.raises(RequestError, match=r"^what a Jinja template trains on shows only with a model: lmflow data"):
        load_template_file(str(file), None)
    file.write_text("{{ messages[0].content }}")
    with pytest.raises(RequestError, match=r"mine\.jinja: the chat template ends an answer with no control token: "):
        load_template_file(str(file), tokenizer)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"^the template .*absent\.yaml cannot be read: "):
        load_template_file(str(tmp_path / "absent.yaml"), None)
    (tmp_path / "latin.yaml").write_bytes(b"user: \xff")
    with pytest.raises(RequestError, match=r"^the template .*latin\.yaml cannot be read: "):
        load_template_file(str(tmp_path / "latin.yaml"), None)


def test_a_file_of_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "fake_lmflow_packaged"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "mine.yaml").write_text(MINE, encoding="utf-8")
    (package / "bad.yaml").write_text("user: 3", encoding="utf-8")
    (package / "latin.yaml").write_bytes(b"user: \xff")
    monkeypatch.syspath_prepend(tmp_path)
    assert packaged_template("fake_lmflow_packaged", "mine.yaml") == described(MINE, "mine.yaml")
    with pytest.raises(OptionError, match=r"^fake_lmflow_packaged: bad\.yaml: assistant, stop must be given"):
        packaged_template("fake_lmflow_packaged", "bad.yaml")
    for package_name, file in (("fake_lmflow_packaged", "absent.yaml"), ("fake_lmflow_packaged", "latin.yaml"),
                               ("fake_lmflow_absent", "mine.yaml")):  # fmt: skip
        with pytest.raises(RequestError, match=rf"^the template {file} of {package_name} cannot be read: "):
            packaged_template(package_name, file)
