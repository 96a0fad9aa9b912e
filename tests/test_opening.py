"""What ``--model`` may be, what each wrong reference is told, and how a model's template is found."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lmflow_core.contracts.examples import Message
from lmflow_core.contracts.model import ModelSpec
from lmflow_core.contracts.settings import ModelSettings
from lmflow_core.contracts.template import TemplateSpec
from lmflow_core.errors import ModelError, PluginLoadError, RequestError, UnknownNameError
from lmflow_core.models.opening import OpenModel, open_model
from lmflow_core.plugins.discovery import load_plugins
from lmflow_core.plugins.policy import PluginPolicy
from lmflow_core.plugins.record import PluginRecord, PluginSet
from lmflow_core.plugins.references import find_model
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.templates import ChatTemplate
from lmflow_core.templates.choosing import choose_template, jinja_for, load_template, matching_templates
from lmflow_core.templates.own import JinjaTemplate
from lmflow_core.testing.fixtures import CliResult
from lmflow_core.testing.letters import Pictures

# Whatever else is installed, the names are those of these plugins.
INSTALLED = load_plugins(PluginPolicy(only=frozenset({"transformers", "templates", "smollm2", "lora"})))


def _catalogue(*records: PluginRecord) -> Catalogue:
    return Catalogue(PluginSet((*INSTALLED.records, *records)))


CATALOGUE = _catalogue()


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder, a GGUF file and another file, and work beside them."""
    monkeypatch.chdir(tmp_path)
    for folder in ("folder", "a/deep/folder", "12:30:00", "smollm2"):
        Path(folder).mkdir(parents=True)
    for file in ("weights.gguf", "a/weights.gguf", "a/model.safetensors", "notes"):
        Path(file).write_text("")
    return tmp_path


REFERENCES = {
    "smollm2": "smollm2:smollm2-135m-instruct",
    "smollm2-135m-instruct": "smollm2:smollm2-135m-instruct",
    "lmflow-smollm2:smollm2": "smollm2:smollm2-135m-instruct",
    "transformers:causal": "transformers:causal",
    "folder": "transformers:causal",
    "./smollm2": "transformers:causal",
    "a/deep/folder": "transformers:causal",
    "12:30:00": "transformers:causal",
    "weights.gguf": "transformers:causal",
    "a/weights.gguf": "transformers:causal",
    "owner/name": "transformers:causal",
}


@pytest.mark.parametrize("reference", REFERENCES)
def test_what_opens_a_reference(places: Path, reference: str) -> None:
    assert find_model(reference, CATALOGUE).qualified == REFERENCES[reference]


def test_an_absolute_folder_and_one_at_home(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(places))
    assert find_model(str(places / "folder"), CATALOGUE).qualified == "transformers:causal"
    assert find_model("~/folder", CATALOGUE).qualified == "transformers:causal"


MISSING = {
    "./nowhere": "no such folder: ./nowhere",
    "../nowhere": "no such folder: ../nowhere",
    "~/nowhere": "no such folder: ~/nowhere",
    "/nowhere/at/all": "no such folder: /nowhere/at/all",
    "a/b/c": "no such folder: a/b/c",
    "nowhere.gguf": "no such file: nowhere.gguf",
    "a/nowhere.gguf": "no such file: a/nowhere.gguf",
    "a/model.safetensors": "a/model.safetensors is a file; a model is a folder or a .gguf file",
    "notes": "notes is a file; a model is a folder or a .gguf file",
}


@pytest.mark.parametrize("reference", MISSING)
def test_a_place_that_holds_no_model(places: Path, reference: str) -> None:
    with pytest.raises(ModelError) as caught:
        find_model(reference, CATALOGUE)
    assert str(caught.value) == MISSING[reference]


UNKNOWN = {
    "smollm": (
        "unknown model 'smollm'. Did you mean 'smollm2'? "
        "Known models: causal (transformers), smollm2-135m-instruct (smollm2)."
    ),
    "qqq": "unknown model 'qqq'. Known models: causal (transformers), smollm2-135m-instruct (smollm2).",
    "smollm2:qqq": (
        "unknown model 'qqq' of plugin 'smollm2'. Known models: causal (transformers), smollm2-135m-instruct (smollm2)."
    ),
}


@pytest.mark.parametrize("reference", UNKNOWN)
def test_a_name_that_nobody_knows(reference: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        find_model(reference, CATALOGUE)
    assert str(caught.value) == UNKNOWN[reference]


def test_a_form_that_nobody_or_too_many_open(places: Path) -> None:
    bare = Catalogue(PluginSet(tuple(record for record in INSTALLED.records if record.name != "transformers")))
    with pytest.raises(ModelError) as caught:
        find_model("folder", bare)
    assert str(caught.value) == "no plugin opens 'folder' (a folder reference); see 'lmflow plugins --kind model'"
    forms = {"references": ("folder",), "native": ("folder",)}
    spec = ModelSpec(name="other", target="other:Loader", summary="Another.", **forms)
    two = _catalogue(PluginRecord("rival", "lmflow-rival", "1", specs=(spec,)))
    with pytest.raises(ModelError) as caught:
        find_model("folder", two)
    assert str(caught.value) == (
        "'folder' can be opened by transformers:causal or rival:other; leave all but one out (--no-plugin rival)"
    )
    assert find_model("owner/name", two).qualified == "transformers:causal"


def _runner(**changes: Any) -> PluginRecord:
    values = {"references": ("gguf",), "native": ("gguf",), "runtime": "fast", "decoder": "racer", **changes}
    spec = ModelSpec(name="runner", target="runner:Loader", summary="Runs files.", **values)
    return PluginRecord("runner", "lmflow-runner", "1", specs=(spec,))


def test_what_runs_a_form_as_it_is_goes_before_what_converts_it(places: Path) -> None:
    both = _catalogue(_runner())
    assert find_model("weights.gguf", both).qualified == "runner:runner"
    assert find_model("weights.gguf", both, "torch").qualified == "transformers:causal"
    assert find_model("folder", both).qualified == "transformers:causal"
    unready = _catalogue(_runner(requires=("no-such-distribution",)))
    assert find_model("weights.gguf", unready).qualified == "transformers:causal"


def test_a_model_of_another_runtime_is_refused(places: Path) -> None:
    both = _catalogue(_runner())
    with pytest.raises(RequestError) as caught:
        find_model("folder", both, "fast", "decoder 'racer'")
    assert str(caught.value) == "decoder 'racer' needs a model that runs in fast; 'folder' runs in torch"
    with pytest.raises(RequestError) as caught:
        find_model("runner:runner", both, "torch")
    assert str(caught.value) == "this command needs a model that runs in torch; 'runner:runner' runs in fast"


def test_an_adapter_that_is_a_file_is_for_models_that_put_it_on_themselves(tiny_model: Path, places: Path) -> None:
    with pytest.raises(ModelError) as caught:
        open_model(ModelSettings(model=str(tiny_model), adapter=places / "weights.gguf"), CATALOGUE)
    assert str(caught.value) == f"{places / 'weights.gguf'} is a file that model 'causal' cannot put on itself"


def test_opening_leaves_the_weights_for_later(tiny_model: Path) -> None:
    opened = open_model(ModelSettings(model=str(tiny_model), device="cpu"), CATALOGUE)
    assert (opened.template_name, opened.adapter, opened.tuner) == (None, None, None)
    with pytest.raises(ModelError, match="are not loaded"):
        _ = opened.model.network  # type: ignore[attr-defined]
    assert opened.load() is opened.model
    assert opened.model.network.config.vocab_size == 400  # type: ignore[attr-defined]


def test_adapters_that_are_none(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        open_model(ModelSettings(model=str(tiny_model), adapter=tmp_path), CATALOGUE)
    assert str(caught.value) == f"{tmp_path} holds no adapter (looked for adapter_config.json)"
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError) as caught:
        open_model(ModelSettings(model=str(tmp_path)), CATALOGUE)
    assert str(caught.value) == (
        f"{tmp_path} holds an adapter that does not tell its base model: add --adapter and --model"
    )
    without = Catalogue(PluginSet(tuple(record for record in INSTALLED.records if record.name != "lora")))
    with pytest.raises(ModelError) as caught:
        open_model(ModelSettings(model=str(tiny_model), adapter=tmp_path), without)
    assert str(caught.value) == f"{tmp_path} holds no adapter (looked for none: no plugin makes any)"


def test_an_adapters_folder_opens_its_base_model(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(tiny_model)}))
    opened = open_model(ModelSettings(model=str(tmp_path), device="cpu"), CATALOGUE)
    assert opened.adapter == opened.model.adapter == tmp_path
    assert opened.model.folder == tiny_model
    assert opened.model.reference == str(tiny_model)
    named = open_model(ModelSettings(model=str(tiny_model), adapter=tmp_path, device="cpu"), CATALOGUE)
    assert (named.adapter, named.model.reference) == (tmp_path, str(tiny_model))


def test_the_run_tells_which_of_two_tuners_made_an_adapter(tiny_model: Path, tmp_path: Path) -> None:
    lora = next(spec for record in INSTALLED.records for spec in record.specs if spec.name == "lora")
    two = _catalogue(PluginRecord("rival", "lmflow-rival", "1", specs=(replace(lora, name="rival", aliases=()),)))
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(tiny_model)}))
    with pytest.raises(ModelError) as caught:
        open_model(ModelSettings(model=str(tmp_path), device="cpu"), two)
    assert str(caught.value) == (
        f"the adapter in {tmp_path} may be one of lora:lora or rival:rival, and its run.json does not tell which: "
        "leave all but one out with --no-plugin"
    )
    for made_by in ("lora", "rival", "rival:rival"):
        (tmp_path / "run.json").write_text(json.dumps({"options": {"tuner": made_by}}))
        assert open_model(ModelSettings(model=str(tmp_path), device="cpu"), two).adapter == tmp_path


def test_of_the_tuners_of_one_plugin_the_first_puts_on_what_none_is_told_to_have_made(
    tiny_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(tiny_model)}))
    made_by = {None: "LoraTuner", "lora": "LoraTuner", "qlora": "QloraTuner"}
    for name, tuner in made_by.items():
        (tmp_path / "run.json").write_text(json.dumps({"options": {"tuner": name}}))
        opened = open_model(ModelSettings(model=str(tmp_path), device="cpu"), CATALOGUE)
        assert type(opened.tuner).__name__ == tuner


def test_a_whole_model_that_replaces_an_adapter_opens_as_one(
    lmflow_cli: Callable[..., CliResult], tiny_model: Path, write_rows: Callable[..., Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    line = ("finetune", "--model", tiny_model, "--dataset", write_rows([{"text": "hello world"}]), "--output", out)
    assert lmflow_cli(*line, "--tuner", "lora").status == 0
    assert open_model(ModelSettings(model=str(out), device="cpu"), CATALOGUE).adapter == out
    assert lmflow_cli(*line, "--overwrite").status == 0
    assert open_model(ModelSettings(model=str(out), device="cpu"), CATALOGUE).adapter is None
    names = {path.name for path in out.iterdir()}
    assert set(json.loads((out / "run.json").read_text())["files"]) == names
    assert {"model.safetensors", "run.json"} <= names


class Named:
    """A tokenizer whose own template is one of LMFlow's, or whatever it is given."""

    bos_token: str | None = "<s>"
    eos: str | None = "</s>"
    control_tokens: Mapping[str, int] = {"</s>": 1, "<|im_end|>": 2}
    image = "<image>"

    def __init__(self, own: ChatTemplate | None) -> None:
        self.own = own.bind(self.bos_token, self.eos) if own else None
        self.chat_template = self.own.to_jinja() if self.own else None

    def render_chat(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool,
        tools: Any = (),
        jinja: str | None = None,
        parts: bool = False,
    ) -> str | None:
        if self.own is None:
            return None
        try:
            segments = self.own.render(messages, add_generation_prompt, tools)
        except ValueError:
            return None
        return "".join(self.image if segment.image else segment.text for segment in segments)


def _opened(own: ChatTemplate | None, named: str | None = None) -> OpenModel:
    class Model:
        tokenizer = Named(own)
        media = None

    model: Any = Model()
    return OpenModel(model, named)


def _own(name: str) -> ChatTemplate:
    template = CATALOGUE.of(TemplateSpec).load(name)
    assert isinstance(template, ChatTemplate)
    return template


@pytest.mark.parametrize("name", [provided.spec.name for provided in CATALOGUE.of(TemplateSpec)])
def test_a_template_is_known_by_what_it_renders(name: str) -> None:
    chosen, template = choose_template(None, _opened(_own(name)), CATALOGUE)
    assert chosen == name
    assert template == _own(name).bind("<s>", "</s>")


@pytest.mark.parametrize("name", ["llama2", "qwen3", "gpt_oss", "gemma3"])
def test_a_template_that_refuses_a_system_message_or_tools_is_still_known(name: str) -> None:
    known = "gemma" if name == "gemma3" else name
    for without in (replace(_own(name), system=None), replace(_own(name), system=None, tools=None)):
        assert matching_templates(_opened(without).model.tokenizer, CATALOGUE) == [known]


def test_a_template_is_not_the_models_when_it_writes_images_otherwise() -> None:
    opened = _opened(_own("chatml"))
    opened.model.media = Pictures()  # type: ignore[misc]
    assert choose_template(None, opened, CATALOGUE)[0] == "chatml"
    opened.model.tokenizer.image = "<|begin|><image><|end|>"  # type: ignore[attr-defined]
    name, template = choose_template(None, opened, CATALOGUE)
    assert name == "tokenizer"
    assert isinstance(template, JinjaTemplate)
    opened.model.media = None  # type: ignore[misc]
    assert choose_template(None, opened, CATALOGUE)[0] == "chatml"


def test_a_template_is_saved_with_a_place_for_images_where_the_model_takes_them() -> None:
    opened = _opened(_own("chatml"))
    template = _own("chatml").bind("<s>", "</s>")
    assert jinja_for(template, opened.model) == template.to_jinja()
    assert "<image>" not in template.to_jinja()
    opened.model.media = Pictures()  # type: ignore[misc]
    assert jinja_for(template, opened.model) == template.to_jinja("<image>")


def test_the_tiny_models_template_is_chatml(tiny_model: Path) -> None:
    opened = open_model(ModelSettings(model=str(tiny_model), device="cpu"), CATALOGUE)
    assert matching_templates(opened.model.tokenizer, CATALOGUE) == ["chatml"]
    assert choose_template(None, opened, CATALOGUE)[0] == "chatml"


def test_asked_for_comes_before_the_models_name_and_that_before_matching() -> None:
    opened = _opened(_own("chatml"), named="zephyr")
    assert choose_template("llama2", opened, CATALOGUE)[0] == "llama2"
    assert choose_template("templates:llama2", opened, CATALOGUE)[0] == "llama2"
    assert choose_template(None, opened, CATALOGUE)[0] == "zephyr"
    with pytest.raises(UnknownNameError, match=r"^unknown template 'chatmll'\. Did you mean 'chatml'\?"):
        choose_template("chatmll", opened, CATALOGUE)


STRANGE = ChatTemplate(system="S{content}", user="U{content}", assistant="A{content}{eos}", stop=("{eos}",))
# One more line break is another template.
NEARLY_ZEPHYR = replace(_own("zephyr"), assistant_end="\n\n")


@pytest.mark.parametrize("own", [STRANGE, NEARLY_ZEPHYR], ids=["strange", "nearly zephyr"])
def test_a_template_that_nobody_knows_is_used_as_it_is(own: ChatTemplate) -> None:
    chosen, template = choose_template(None, _opened(own), CATALOGUE)
    assert chosen == "tokenizer"
    assert template is not None
    assert template.to_jinja() == own.bind("<s>", "</s>").to_jinja()
    assert template.stop == ("</s>",)
    assert choose_template("zephyr", _opened(own), CATALOGUE)[0] == "zephyr"


UNUSABLE = {
    "no template": (
        None,
        "the model has no chat template: choose one with --template NAME. Known: "
        + ", ".join(CATALOGUE.of(TemplateSpec).names()),
    ),
    "no stop": (
        replace(STRANGE, assistant="A{content}", stop=("x",)),
        "the model's own template cannot be used: the chat template ends an answer with no control token: "
        "choose a template that LMFlow knows with --template NAME",
    ),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_a_model_that_does_not_tell_its_template(case: str) -> None:
    own, problem = UNUSABLE[case]
    with pytest.raises(RequestError) as caught:
        choose_template(None, _opened(own), CATALOGUE)
    assert str(caught.value) == problem
    assert choose_template(None, _opened(own), CATALOGUE, needed=False) == (None, None)
    assert choose_template("chatml", _opened(own), CATALOGUE)[0] == "chatml"


def test_the_models_own_template_when_it_is_asked_for() -> None:
    assert choose_template("tokenizer", _opened(_own("zephyr")), CATALOGUE)[0] == "tokenizer"
    with pytest.raises(RequestError, match=r"^the model has no chat template of its own: choose one with --template"):
        choose_template("tokenizer", _opened(None), CATALOGUE)


def test_a_template_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("user: 'U{content}{bos}'\nassistant: 'A{content}{eos}'\nstop: ['{eos}']\n")
    chosen, template = choose_template(str(file), _opened(_own("zephyr")), CATALOGUE)
    assert chosen == str(file)
    assert template == ChatTemplate(user="U{content}<s>", assistant="A{content}</s>", stop=("</s>",))


def _rival(monkeypatch: pytest.MonkeyPatch, name: str, target: str = "rival_templates:TEMPLATE") -> Catalogue:
    module = ModuleType("rival_templates")
    vars(module)["TEMPLATE"] = replace(_own("chatml"), stop=("<|im_end|>", "<|endoftext|>"))
    monkeypatch.setitem(sys.modules, "rival_templates", module)
    spec = TemplateSpec(name=name, target=target, summary="ChatML again.")
    return _catalogue(PluginRecord("rival", "lmflow-rival", "1", specs=(spec,)))


@pytest.mark.parametrize(("name", "choices"), [("twin", "chatml|twin"), ("chatml", "templates:chatml|rival:chatml")])
def test_several_templates_that_fit(monkeypatch: pytest.MonkeyPatch, name: str, choices: str) -> None:
    catalogue = _rival(monkeypatch, name)
    opened = _opened(_own("chatml"))
    with pytest.raises(RequestError) as caught:
        choose_template(None, opened, catalogue)
    assert str(caught.value) == (
        f"several templates render as the model's own does: choose one with --template {choices}|tokenizer"
    )
    assert choose_template(None, opened, catalogue, needed=False) == (None, None)
    for choice in choices.split("|"):
        assert choose_template(choice, opened, catalogue)[0] == choice


def test_a_template_that_cannot_be_loaded_is_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    catalogue = _rival(monkeypatch, "broken", "rival_templates:ABSENT")
    assert choose_template(None, _opened(_own("zephyr")), catalogue)[0] == "zephyr"
    message = (
        "template 'broken' of plugin 'rival' (lmflow-rival 1, target rival_templates:ABSENT) "
        "cannot be imported: AttributeError: module 'rival_templates' has no attribute 'ABSENT'"
    )
    assert capsys.readouterr().err == f"lmflow: left out: {message}\n"
    with pytest.raises(PluginLoadError) as caught:
        choose_template("broken", _opened(None), catalogue)
    assert str(caught.value) == message


def test_loading_binds_a_template_to_the_tokenizer() -> None:
    tokenizer: Any = Named(None)
    assert load_template("zephyr", tokenizer, CATALOGUE).stop == ("</s>",)
    tokenizer.eos = "<e>"
    assert load_template("zephyr", tokenizer, CATALOGUE).stop == ("<e>",)


def test_a_model_whose_template_is_changed_is_no_longer_known(tiny_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m['content'] }}{% endfor %}!")
    opened = open_model(ModelSettings(model=str(folder), device="cpu"), CATALOGUE)
    with pytest.raises(RequestError, match=r"^the model's own template cannot be used: the chat template ends an answ"):
        choose_template(None, opened, CATALOGUE)
