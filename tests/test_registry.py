"""From names to specs and targets: every way in which a name can fail, with its message in full."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint
from typing import Any

import pytest

from lmflow_core.contracts.dataset import DatasetSpec
from lmflow_core.contracts.decoder import DecoderSpec
from lmflow_core.contracts.exporter import ExporterSpec
from lmflow_core.contracts.hooks import KINDS
from lmflow_core.contracts.template import TemplateSpec
from lmflow_core.contracts.tuner import TunerSpec
from lmflow_core.errors import NameConflictError, PluginLoadError, UnknownNameError
from lmflow_core.plugins import registry
from lmflow_core.plugins.discovery import load_plugins
from lmflow_core.plugins.policy import PluginPolicy
from lmflow_core.plugins.record import PluginRecord, PluginSet
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.plugins.targets import contract_problem

Install = Callable[..., EntryPoint]

OFFICIAL: Mapping[str, Mapping[str, str]] = {
    "exporter": {"gguf": "lmflow-gguf", "ollama": "lmflow-gguf"},
    "tuner": {"lora": "lmflow-lora"},
}


@pytest.fixture(autouse=True)
def official(monkeypatch: pytest.MonkeyPatch) -> None:
    """An index of official names that does not change with the plugins there are."""
    monkeypatch.setattr(registry, "official_names", lambda: OFFICIAL)


def _tuner(name: str, *aliases: str) -> TunerSpec:
    return TunerSpec(name=name, target="nowhere:Tuner", summary="A tuner.", aliases=aliases)


def _record(name: str, *specs: Any, distribution: str = "", version: str = "0.4.0", **fields: Any) -> PluginRecord:
    return PluginRecord(name, distribution or f"lmflow-{name}", version, specs=specs, **fields)


def _catalogue(*records: PluginRecord) -> Catalogue:
    return Catalogue(PluginSet(records))


LORA = _record("lora", _tuner("lora", "low-rank"), _tuner("dora"))
PEFTX = _record("peftx", _tuner("lora"), _tuner("ia3", "low-rank"), distribution="peftx", version="1.2")
BROKEN = {"status": "broken", "stage": "import"}


def test_names_are_those_that_can_be_used_as_they_are() -> None:
    tuners = _catalogue(PEFTX, LORA).of(TunerSpec)
    assert tuners.names() == ["dora", "ia3"]
    assert [provided.qualified for provided in tuners] == ["peftx:lora", "peftx:ia3", "lora:lora", "lora:dora"]
    assert [name in tuners for name in ("lora", "low-rank", "dora", "nothing")] == [True, True, True, False]
    assert [tuners.unambiguous(provided) for provided in tuners] == ["peftx:lora", "ia3", "lora:lora", "dora"]


def test_a_name_an_alias_and_a_qualified_name_mean_the_same() -> None:
    tuners = _catalogue(LORA).of(TunerSpec)
    names = ("lora", "low-rank", "lora:lora", "lora:low-rank", "lmflow-lora:lora", "LMFlow_LoRA:lora")
    assert {tuners.spec(name).name for name in names} == {"lora"}
    assert tuners.find("dora").plugin is LORA


CONTESTED = {
    "lora": (
        "tuner 'lora' is provided by 'lora' (lmflow-lora 0.4.0) and 'peftx' (peftx 1.2). "
        "Use 'lora:lora' or 'peftx:lora', or disable one: --no-plugin peftx"
    ),
    "low-rank": (
        "tuner 'low-rank' is provided by 'lora' (lmflow-lora 0.4.0) and 'peftx' (peftx 1.2). "
        "Use 'lora:low-rank' or 'peftx:low-rank', or disable one: --no-plugin peftx"
    ),
}


@pytest.mark.parametrize("name", CONTESTED)
def test_a_contested_name_is_an_error_that_names_both(name: str) -> None:
    tuners = _catalogue(LORA, PEFTX).of(TunerSpec)
    with pytest.raises(NameConflictError) as raised:
        tuners.find(name)
    assert str(raised.value) == CONTESTED[name]
    assert tuners.find(f"lora:{name}").qualified == "lora:lora"
    assert tuners.find(f"peftx:{name}").plugin is PEFTX
    assert tuners.find("dora").qualified == "lora:dora"


def test_conflicts_are_listed_with_the_names_that_end_them() -> None:
    assert _catalogue(LORA, PEFTX).conflicts() == [
        {"kind": "tuner", "name": "lora", "providers": ["lora:lora", "peftx:lora"]},
        {"kind": "tuner", "name": "low-rank", "providers": ["lora:lora", "peftx:ia3"]},
    ]
    assert _catalogue(LORA).conflicts() == []


def test_one_name_may_be_of_several_kinds() -> None:
    dataset = DatasetSpec(name="lora", target="nowhere:X", summary="Rows.", fields="text")
    catalogue = _catalogue(LORA, _record("rows", dataset))
    assert catalogue.conflicts() == []
    assert catalogue.of(DatasetSpec).find("lora").qualified == "rows:lora"


UNKNOWN: dict[str, tuple[list[PluginRecord], str, str]] = {
    "not installed": (
        [LORA],
        "gguf",
        "unknown exporter 'gguf'. "
        "It is provided by lmflow-gguf, not installed: in a checkout of LMFlow, pip install ./plugins/lmflow-gguf",
    ),
    "not installed, qualified": (
        [LORA],
        "gguf:anything",
        "unknown exporter 'anything' of plugin 'gguf'. "
        "It is provided by lmflow-gguf, not installed: in a checkout of LMFlow, pip install ./plugins/lmflow-gguf",
    ),
    "broken": (
        [_record("gguf", error="ModuleNotFoundError: No module named 'gguf'", **BROKEN)],
        "gguf",
        "unknown exporter 'gguf'. It is provided by lmflow-gguf, which is installed but broken "
        "(ModuleNotFoundError: No module named 'gguf'; see 'lmflow plugins show gguf').",
    ),
    "incompatible": (
        [_record("gguf", status="incompatible", error="needs lmflow-core>=9, have 0.1.0")],
        "ollama",
        "unknown exporter 'ollama'. It is provided by lmflow-gguf, which is installed but incompatible "
        "(needs lmflow-core>=9, have 0.1.0; see 'lmflow plugins show gguf').",
    ),
    "in conflict": (
        [_record("gguf", status="conflict", error="a 1 and b 2 declare a plugin 'gguf'; uninstall all but one")],
        "gguf",
        "unknown exporter 'gguf'. It is provided by lmflow-gguf, which is installed but in conflict "
        "(a 1 and b 2 declare a plugin 'gguf'; uninstall all but one; see 'lmflow plugins show gguf').",
    ),
    "disabled": (
        [_record("gguf", status="disabled", error="disabled by LMFLOW_DISABLE_PLUGINS")],
        "gguf",
        "unknown exporter 'gguf'. It is provided by lmflow-gguf, which is disabled by LMFLOW_DISABLE_PLUGINS.",
    ),
    "not listed": (
        [_record("gguf", status="disabled", error="disabled by LMFLOW_PLUGINS, which does not list it")],
        "gguf",
        "unknown exporter 'gguf'. "
        "It is provided by lmflow-gguf, which is disabled by LMFLOW_PLUGINS, which does not list it.",
    ),
    "a stranger's plugin, broken": (
        [_record("peftx", distribution="peftx", error="ImportError: no", **BROKEN)],
        "peftx:gguf",
        "unknown exporter 'gguf' of plugin 'peftx'. It is provided by peftx, which is installed but broken "
        "(ImportError: no; see 'lmflow plugins show peftx').",
    ),
    "misspelt": (
        [
            _record("transformers", ExporterSpec(name="huggingface", target="a:b", summary="x", aliases=("hf",))),
            _record("ct2", ExporterSpec(name="ctranslate", target="a:b", summary="x")),
        ],
        "hugingface",
        "unknown exporter 'hugingface'. Did you mean 'huggingface'? "
        "Known exporters: ctranslate (ct2), huggingface (transformers).",
    ),
    "known to a healthy official plugin of an older version": (
        [_record("gguf", ExporterSpec(name="gguf", target="a:b", summary="x"))],
        "ollama",
        "unknown exporter 'ollama'. Known exporters: gguf (gguf).",
    ),
    "not a name of that plugin": (
        [_record("gguf", ExporterSpec(name="gguf", target="a:b", summary="x"))],
        "gguf:xyzzy",
        "unknown exporter 'xyzzy' of plugin 'gguf'. Known exporters: gguf (gguf).",
    ),
    "perhaps of a plugin that failed": (
        [_record("peftx", error="no", **BROKEN), _record("old", status="incompatible", error="no"), LORA],
        "xyzzy",
        "unknown exporter 'xyzzy'. Known exporters: none. Not loaded, so their names are missing: peftx, old.",
    ),
    "a plugin nobody knows": (
        [LORA],
        "xyzzy:gguf",
        "unknown exporter 'gguf' of plugin 'xyzzy'. No plugin 'xyzzy' is installed.",
    ),
    "a misspelt plugin": (
        [LORA],
        "lorra:gguf",
        "unknown exporter 'gguf' of plugin 'lorra'. No plugin 'lorra' is installed. Did you mean 'lora'?",
    ),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_an_unknown_name_is_answered_by_its_cause(case: str) -> None:
    records, name, message = UNKNOWN[case]
    with pytest.raises(UnknownNameError) as raised:
        _catalogue(*records).of(ExporterSpec).find(name)
    assert str(raised.value) == message
    assert raised.value.exit_status == 2


TAKEN_BY_STRANGERS = ("eval", "evaluate", "evaluator", "finetune", "inference", "vision", "deploy", "pretrain")


@pytest.mark.parametrize("plugin", TAKEN_BY_STRANGERS)
def test_a_package_that_is_not_official_is_never_suggested(plugin: str) -> None:
    for name in (f"{plugin}:gguf", f"lmflow-{plugin}:gguf", plugin):
        with pytest.raises(UnknownNameError) as raised:
            _catalogue(LORA).of(ExporterSpec).find(name)
        assert "pip install" not in str(raised.value)


def test_the_registry_of_each_kind_is_found() -> None:
    catalogue = _catalogue(LORA)
    assert [catalogue.of_kind(kind).kind for kind in KINDS] == list(KINDS)
    assert catalogue.of_kind("tuner") is catalogue.of(TunerSpec)


PLUGIN = """
from lmflow_core.api import DecoderSpec, hookimpl

def _decoder(name, **more):
    return DecoderSpec(name=name, target=f"fake_targets:{name.title()}", summary="A decoder.", **more)

@hookimpl
def lmflow_register_decoders():
    return [
        _decoder("good"), _decoder("loose"), _decoder("short"), _decoder("narrow"), _decoder("missing"),
        _decoder("lonely", batches=True),
        _decoder("needy", requires=("click", "no-such-distribution")),
        _decoder("lured", requires=("lmflow-nobody",)),
        DecoderSpec(name="error", target="fake_failing:X", summary="A decoder."),
        DecoderSpec(name="exit", target="fake_exiting:X", summary="A decoder."),
        DecoderSpec(name="interrupt", target="fake_interrupted:X", summary="A decoder."),
    ]
"""
TARGETS = """
class Good:
    def prepare(self, model, services):
        pass
    def decode(self, model, request, more=None):
        yield

class Loose:
    def prepare(self, model, services):
        pass
    def decode(self, model, **asked):
        yield

class Short:
    decode = None
    def prepare(self, model, services):
        pass

class Narrow:
    def prepare(self, model, services):
        pass
    def decode(self, prompt, *, max_new_tokens, seed):
        yield

Needy = Lonely = Good
"""


@pytest.fixture
def decoders(install_plugin: Install, monkeypatch: pytest.MonkeyPatch) -> registry.Registry[DecoderSpec]:
    """Decoders of a plugin whose targets fit and fail in every way."""
    entry = install_plugin("fake", PLUGIN)
    assert entry.dist is not None
    site = entry.dist.locate_file("")
    modules = {
        "fake_targets": TARGETS,
        "fake_failing": "import no_such_module",
        "fake_exiting": "raise SystemExit('no licence')",
        "fake_interrupted": "raise KeyboardInterrupt",
    }
    for name, source in modules.items():
        monkeypatch.delitem(sys.modules, name, raising=False)
        (site / f"{name}.py").write_text(source)  # type: ignore[attr-defined]
    return Catalogue(load_plugins(PluginPolicy(), [entry])).of(DecoderSpec)


def test_a_target_is_imported_only_when_it_is_loaded(decoders: registry.Registry[DecoderSpec]) -> None:
    assert decoders.spec("good").target == "fake_targets:Good"
    assert "good" in decoders.names()
    assert "fake_targets" not in sys.modules
    assert decoders.load("good") is sys.modules["fake_targets"].Good
    assert decoders.load("fake:loose") is sys.modules["fake_targets"].Loose


UNLOADABLE = {
    "short": "(lmflow-fake 1.0, target fake_targets:Short) does not fit its contract: it has no method 'decode'",
    "narrow": (
        "(lmflow-fake 1.0, target fake_targets:Narrow) does not fit its contract: decode() does not take model, request"
    ),
    "lonely": "(lmflow-fake 1.0, target fake_targets:Lonely) does not fit its contract: it has no method 'open_batch'",
    "missing": (
        "(lmflow-fake 1.0, target fake_targets:Missing) cannot be imported: "
        "AttributeError: module 'fake_targets' has no attribute 'Missing'"
    ),
    "needy": (
        "(lmflow-fake 1.0, target fake_targets:Needy) needs no-such-distribution: pip install no-such-distribution"
    ),
    "lured": "(lmflow-fake 1.0, target fake_targets:Lured) needs lmflow-nobody: not installed",
    "error": (
        "(lmflow-fake 1.0, target fake_failing:X) cannot be imported: "
        "ModuleNotFoundError: No module named 'no_such_module'"
    ),
    "exit": "(lmflow-fake 1.0, target fake_exiting:X) cannot be imported: SystemExit: no licence",
}


@pytest.mark.parametrize("name", UNLOADABLE)
def test_a_target_that_cannot_serve_is_told(decoders: registry.Registry[DecoderSpec], name: str) -> None:
    with pytest.raises(PluginLoadError) as raised:
        decoders.load(name)
    assert str(raised.value) == f"decoder {name!r} of plugin 'fake' {UNLOADABLE[name]}"
    assert raised.value.exit_status == 2


def test_an_interrupt_while_importing_is_not_swallowed(decoders: registry.Registry[DecoderSpec]) -> None:
    with pytest.raises(KeyboardInterrupt):
        decoders.load("interrupt")


class _Template:
    stop = ("</s>",)

    def bind(self, bos: str | None, eos: str | None) -> _Template:
        return self

    def render(self, messages: Any, add_generation_prompt: bool, tools: Any = ()) -> tuple[Any, ...]:
        return ()

    def read_calls(self, text: str, tools: Any = ()) -> None:
        return None

    def to_jinja(self, image: str = "") -> str:
        return ""


def test_an_object_fits_a_contract_as_a_class_does() -> None:
    (template,) = TemplateSpec(name="x", target="a:b", summary="A template.").contracts()
    assert contract_problem(_Template, template) is None
    assert contract_problem(_Template(), template) is None
    assert contract_problem(object(), template) == "it has no method 'bind'"


def test_the_index_of_official_names_is_read_from_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    names = registry.official_names()
    assert names["tuner"]["full"] == "lmflow-transformers"
    assert "lmflow-templates" in registry.official_distributions()
