"""A hook is there because a plugin uses it, and what plugins declare through it holds."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from lmflow_core import api
from lmflow_core.config.schema import CHAT, EVALUATE, EVALUATE_ANSWERS, EXPORT, FINETUNE, GENERATE
from lmflow_core.contracts.hooks import HOOKS, KINDS, SPEC_CLASSES, HookSpecs
from lmflow_core.contracts.spec import Spec
from lmflow_core.options import fields_of
from lmflow_core.plugins.discovery import load_plugins
from lmflow_core.plugins.policy import PluginPolicy
from lmflow_core.plugins.provided import Provided
from lmflow_core.plugins.record import PluginSet
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.plugins.targets import missing_requirement
from lmflow_core.testing.contracts import CONTRACTS, ComponentContract

_ROOT = Path(__file__).parents[2]
# Offered to others; the core's own tests install a plugin that uses it.
USED_BY_OTHERS = {"lmflow_register_commands"}


@functools.cache
def _official() -> PluginSet:
    folders = {path.parent.name for path in _ROOT.glob("plugins/*/pyproject.toml")}
    records = load_plugins(PluginPolicy()).records
    return PluginSet(tuple(record for record in records if record.distribution in folders))


def _provided() -> Mapping[str, Provided[Spec]]:
    catalogue = Catalogue(_official())
    return {
        f"{kind} {provided.qualified}": provided
        for kind in KINDS
        for provided in sorted(catalogue.of_kind(kind), key=lambda provided: provided.qualified)
    }


PROVIDED = _provided()
each_spec = pytest.mark.parametrize("name", PROVIDED)


def test_every_official_plugin_is_healthy_and_no_name_is_contested() -> None:
    folders = sorted(path.parent.name for path in _ROOT.glob("plugins/*/pyproject.toml"))
    assert sorted(record.distribution for record in _official().records) == folders
    assert [(record.name, record.error) for record in _official().unhealthy()] == []
    assert Catalogue(_official()).conflicts() == []


def test_every_hook_is_used_by_an_official_plugin() -> None:
    used = {hook for record in _official().records for hook in record.hooks}
    assert set(HOOKS) - used <= USED_BY_OTHERS
    given = {spec.kind for record in _official().records for spec in record.specs}
    assert {HOOKS[hook].kind for hook in used} == given


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_contract_and_a_page(kind: str) -> None:
    assert issubclass(CONTRACTS[kind], ComponentContract)
    assert (_ROOT / "docs" / "reference" / "points" / f"{kind}.md").is_file()
    assert (_ROOT / "dev" / "faults" / f"{kind}.py").is_file()
    assert (_ROOT / "lmflow_core" / "scaffold" / "kinds" / f"{kind}.yaml").is_file()


@pytest.mark.parametrize("plugin", [record.distribution for record in _official().records])
def test_every_plugin_is_held_to_its_contracts(plugin: str) -> None:
    tests = (path.read_text(encoding="utf-8") for path in (_ROOT / "plugins" / plugin / "tests").glob("*.py"))
    text = "\n".join(tests)
    (record,) = (record for record in _official().records if record.distribution == plugin)
    assert "(PluginContract)" in text
    for spec in record.specs:
        contract = CONTRACTS[spec.kind].__name__
        named = rf'\({contract}\):\n    name = "{re.escape(spec.name)}"'
        assert re.search(named, text) or f"({contract},)" in text, f"no {contract} for {spec.name}"


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_takes_nothing_and_says_what_it_gives(hook: str) -> None:
    function = getattr(HookSpecs, hook)
    assert list(inspect.signature(function).parameters) == ["self"]
    assert inspect.signature(function).return_annotation == Iterable[HOOKS[hook]]
    assert function.__doc__ == HOOKS[hook].__doc__


@pytest.mark.parametrize("hook", HOOKS)
def test_the_example_in_a_hook_s_documentation_works(hook: str) -> None:
    documentation = inspect.cleandoc(HOOKS[hook].__doc__ or "")
    example = documentation.partition("Example::\n")[2]
    namespace = dict(vars(api))
    exec(inspect.cleandoc(example), namespace)
    (spec,) = namespace[hook]()
    assert type(spec) is HOOKS[hook]


@pytest.mark.parametrize("spec_class", SPEC_CLASSES, ids=lambda spec_class: spec_class.__name__)
def test_every_spec_is_public_and_its_fields_are_described(spec_class: type[Spec]) -> None:
    assert getattr(api, spec_class.__name__) is spec_class
    assert spec_class.__doc__ is not None
    common = {field.name for field in dataclasses.fields(Spec)}
    own = [field.name for field in dataclasses.fields(spec_class) if field.name not in common]
    assert [name for name in own if f"``{name}``" not in spec_class.__doc__] == []


@each_spec
def test_a_summary_is_a_sentence(name: str) -> None:
    summary = PROVIDED[name].spec.summary
    assert summary.endswith(".")
    assert summary[0].isupper() or not summary[0].isalpha()


@each_spec
def test_a_target_belongs_to_its_plugin_and_fits_its_contract(name: str) -> None:
    provided = PROVIDED[name]
    assert provided.spec.target.startswith(provided.plugin.distribution.replace("-", "_") + ".")
    if missing := missing_requirement(provided.spec):
        pytest.skip(f"{missing} is not installed")
    assert Catalogue(_official()).of_kind(provided.spec.kind).load(provided.qualified) is not None


@each_spec
def test_options_are_frozen_described_and_their_own(name: str) -> None:
    options = PROVIDED[name].spec.options
    if options is None:
        return
    assert options.__dataclass_params__.frozen  # type: ignore[attr-defined]
    shared = {
        field.name: field
        for schema in (FINETUNE, EVALUATE, EVALUATE_ANSWERS, EXPORT, GENERATE, CHAT)
        if PROVIDED[name].spec.kind in schema.selectors.values()
        for settings in schema.settings
        for field in fields_of(settings)
    }
    for field in fields_of(options):
        assert field.help.endswith(".")
        assert not field.required
        assert field.name not in shared
        assert set(field.aliases).isdisjoint(shared)


def test_options_of_components_that_can_meet_have_different_names() -> None:
    for schema in (FINETUNE, EVALUATE, EVALUATE_ANSWERS, EXPORT, GENERATE, CHAT):
        owners: dict[str, Spec] = {}
        for provided in PROVIDED.values():
            spec = provided.spec
            if spec.kind not in schema.selectors.values():
                continue
            for field in fields_of(spec.options) if spec.options else ():
                other = owners.setdefault(field.name, spec)
                assert other.kind == spec.kind, f"{field.flag} is an option of {other.name} and {spec.name}"


def test_everything_public_is_there_and_listed() -> None:
    shown = {name for name in vars(api) if name[0] not in "_@"}
    assert set(api.__all__) == shown
    assert len(api.__all__) == len(shown)
    assert api.API_LEVEL >= 1
