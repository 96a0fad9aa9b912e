"""Loading plugins: each stage at which one can fail, and that a failure stays with the plugin it belongs to."""

from __future__ import annotations

import hashlib
import itertools
import sys
from collections.abc import Callable
from importlib.metadata import Distribution, EntryPoint
from pathlib import Path

import pytest

import lmflow_core
from lmflow_core.contracts.tuner import TunerSpec
from lmflow_core.errors import PluginError
from lmflow_core.plugins.collecting import StageError, guarded
from lmflow_core.plugins.containment import Interrupts
from lmflow_core.plugins.discovery import load_plugins
from lmflow_core.plugins.policy import PluginPolicy, short_name
from lmflow_core.plugins.record import PluginRecord, PluginSet
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.testing.distributions import core_range

Install = Callable[..., EntryPoint]

FREE = PluginPolicy()
GOOD = """
from lmflow_core.api import DecoderSpec, TunerSpec, hookimpl

@hookimpl
def lmflow_register_tuners():
    yield TunerSpec(name="good", target="nowhere:Good", summary="A tuner.", aliases=("fine",))
    yield TunerSpec(name="better", target="nowhere:Better", summary="Another.")

@hookimpl
def lmflow_register_decoders():
    return [DecoderSpec(name="slow", target="nowhere:Slow", summary="A decoder.")]
"""


def _with(body: str) -> str:
    return f"from lmflow_core.api import DecoderSpec, TunerSpec, hookimpl\n{body}"


def _tuners(*lines: str, mark: str = "@hookimpl", hook: str = "lmflow_register_tuners()") -> str:
    """Return the source of a plugin with one hook."""
    body = "\n".join(f"    {line}" for line in lines)
    return _with(f"\n{mark}\ndef {hook}:\n{body}\n")


def _spec(name: str = "bad", *aliases: str) -> str:
    return f"TunerSpec(name={name!r}, target='nowhere:Bad', summary='A tuner.', aliases={aliases!r})"


def _outcome(record: PluginRecord) -> tuple[str, str, str | None]:
    return record.status, record.stage, record.error


def _by_name(plugins: PluginSet) -> dict[str, PluginRecord]:
    return {record.name: record for record in plugins.records}


def test_a_healthy_plugin_is_recorded_with_all_it_provides(install_plugin: Install) -> None:
    entry = install_plugin("good", GOOD, version="1.2", requires=[f"lmflow-core{core_range()}"])
    (record,) = load_plugins(FREE, [entry]).records
    assert _outcome(record) == ("ok", "loaded", None)
    assert (record.name, record.distribution, record.version) == ("good", "lmflow-good", "1.2")
    assert record.hooks == ("lmflow_register_decoders", "lmflow_register_tuners")
    assert record.provides() == {"decoder": ["slow"], "tuner": ["good", "better"]}
    assert record.location == sys.modules["fake_lmflow_good"].__file__
    assert record.heavy_imports == ()
    assert record.details is None
    assert record.healthy


BROKEN: dict[str, tuple[str, str, str]] = {
    "an import error": (
        "import no_such_module",
        "import",
        "ModuleNotFoundError: No module named 'no_such_module'",
    ),
    "an error of several lines": (
        "raise ImportError('it failed because of\\n   something below')",
        "import",
        "ImportError: it failed because of something below",
    ),
    "a syntax error": ("def (:", "import", "SyntaxError: invalid syntax (fake_lmflow_bad.py, line 1)"),
    "an exit": ("import sys\nsys.exit('no licence')", "import", "SystemExit: no licence"),
    "an exit without a word": ("raise SystemExit", "import", "SystemExit"),
    "a hook with an argument": (
        _tuners("return []", hook="lmflow_register_tuners(config)"),
        "register",
        "PluginValidationError: Plugin 'bad' for hook 'lmflow_register_tuners' hookimpl definition: "
        "lmflow_register_tuners(config) Argument(s) {'config'} are declared in the hookimpl but can not be found in "
        "the hookspec",
    ),
    "no hook at all": (
        "VALUE = 1",
        "hooks",
        "not a plugin: it implements no lmflow_register_… hook (is @hookimpl missing?)",
    ),
    "an unmarked hook": (
        _tuners("return []", mark=""),
        "hooks",
        "not a plugin: it implements no lmflow_register_… hook (is @hookimpl missing?)",
    ),
    "an unmarked hook beside a marked one": (
        _tuners("return []") + "\ndef lmflow_register_decoders():\n    return []\n",
        "hooks",
        "lmflow_register_decoders is not marked with @hookimpl",
    ),
    "a misspelt hook": (
        _tuners("return []", hook="lmflow_register_tunners()"),
        "hooks",
        "unknown hook 'lmflow_register_tunners'. Did you mean 'lmflow_register_tuners'?",
    ),
    "a hook of something else": (_tuners("return []", hook="setup()"), "hooks", "unknown hook 'setup'."),
    "a misspelt hook that is not called": (
        _tuners("return []") + "\n@hookimpl\ndef lmflow_register_decoder():\n    raise RuntimeError('called')\n",
        "hooks",
        "unknown hook 'lmflow_register_decoder'. Did you mean 'lmflow_register_decoders'?",
    ),
    "a hook that wants to be first": (
        _tuners("return []", mark="@hookimpl(tryfirst=True)"),
        "hooks",
        "lmflow_register_tuners asks for an order or wraps others; hooks only declare",
    ),
    "a hook that wants to be last": (
        _tuners("return []", mark="@hookimpl(trylast=True)"),
        "hooks",
        "lmflow_register_tuners asks for an order or wraps others; hooks only declare",
    ),
    "a wrapper": (
        _tuners("return (yield)", mark="@hookimpl(wrapper=True)"),
        "hooks",
        "lmflow_register_tuners asks for an order or wraps others; hooks only declare",
    ),
    "an old wrapper": (
        _tuners("yield", mark="@hookimpl(hookwrapper=True)"),
        "hooks",
        "lmflow_register_tuners asks for an order or wraps others; hooks only declare",
    ),
    "a hook that raises": (_tuners("raise RuntimeError('no')"), "collect", "RuntimeError: no"),
    "a hook that raises halfway": (
        _tuners(f"yield {_spec()}", "raise RuntimeError('halfway')"),
        "collect",
        "RuntimeError: halfway",
    ),
    "a hook that exits": (_tuners("raise SystemExit(3)"), "collect", "SystemExit: 3"),
    "a hook that gives no series": (_tuners("return 5"), "collect", "TypeError: 'int' object is not iterable"),
    "a spec of another kind": (
        _tuners("return [DecoderSpec(name='bad', target='nowhere:Bad', summary='A decoder.')]"),
        "collect",
        "lmflow_register_tuners gave a DecoderSpec, not a TunerSpec",
    ),
    "something that is no spec": (
        _tuners("return ['bad']"),
        "collect",
        "lmflow_register_tuners gave a str, not a TunerSpec",
    ),
    "a name twice": (
        _tuners(f"return [{_spec()}, {_spec()}]"),
        "collect",
        "lmflow_register_tuners gives the name 'bad' twice",
    ),
    "an alias that is a name": (
        _tuners(f"return [{_spec('one')}, {_spec('two', 'one')}]"),
        "collect",
        "lmflow_register_tuners gives the name 'one' twice",
    ),
    "a spec that is wrong": (
        _tuners(f"return [{_spec('Bad Name')}]"),
        "collect",
        "SpecError: tuner name 'Bad Name' must match ^[a-z0-9][a-z0-9._-]*$",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_plugin_is_dropped_whole_and_alone(install_plugin: Install, case: str) -> None:
    source, stage, error = BROKEN[case]
    plugins = load_plugins(FREE, [install_plugin("bad", source), install_plugin("good", GOOD)])
    bad, good = plugins.records
    assert _outcome(bad) == ("broken", stage, error)
    assert bad.specs == ()
    assert not bad.healthy
    assert good.status == "ok"
    assert plugins.unhealthy() == [bad]
    assert Catalogue(plugins).of(TunerSpec).names() == ["better", "good"]


def test_a_broken_plugin_keeps_its_traceback(install_plugin: Install) -> None:
    source = _tuners(f"yield {_spec()}", "raise RuntimeError('halfway')")
    (record,) = load_plugins(FREE, [install_plugin("bad", source)]).records
    assert record.details is not None
    assert record.details.startswith("Traceback (most recent call last):\n")
    assert "fake_lmflow_bad.py" in record.details
    assert record.details.endswith("RuntimeError: halfway\n")


def test_a_long_error_is_cut(install_plugin: Install) -> None:
    (record,) = load_plugins(FREE, [install_plugin("bad", "raise ValueError('word ' * 1000)")]).records
    assert record.error is not None
    assert len(record.error) <= len("ValueError: ") + 300
    assert record.error.endswith("word …")


def test_an_interrupt_of_the_user_is_not_laid_to_a_plugin() -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    interrupts = Interrupts()
    interrupts.by_user = True
    with pytest.raises(KeyboardInterrupt):
        guarded("import", interrupts, interrupted)
    interrupts.by_user = False
    with pytest.raises(StageError):
        guarded("import", interrupts, interrupted)


@pytest.mark.parametrize(
    ("source", "stage"),
    [("import jax\n" + GOOD, "import"), (_tuners("import jax", f"return [{_spec()}]"), "collect")],
)
def test_a_plugin_that_imports_something_heavy_when_it_loads_is_broken(
    install_plugin: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, stage: str
) -> None:
    monkeypatch.delitem(sys.modules, "jax", raising=False)
    (tmp_path / "site" / "jax.py").write_text("")
    try:
        (record,) = load_plugins(FREE, [install_plugin("bad", source)]).records
    finally:
        sys.modules.pop("jax", None)
    message = "imports jax when it loads; import it in the module of a target"
    assert _outcome(record) == ("broken", stage, message)
    assert record.heavy_imports == ("jax",)
    assert record.specs == ()


def test_a_hook_marked_optional_may_belong_to_a_newer_core(install_plugin: Install) -> None:
    newer = "\n@hookimpl(optionalhook=True)\ndef lmflow_register_holograms():\n    raise RuntimeError('called')\n"
    sources = {"both": _tuners(f"return [{_spec()}]") + newer, "newer": _with(newer)}
    both, only = load_plugins(FREE, [install_plugin(name, text) for name, text in sources.items()]).records
    assert (both.status, both.hooks, both.provides()) == ("ok", ("lmflow_register_tuners",), {"tuner": ["bad"]})
    assert (only.status, only.hooks, only.provides()) == ("ok", (), {})


def test_two_functions_may_implement_one_hook(install_plugin: Install) -> None:
    mark = "@hookimpl(specname='lmflow_register_tuners')"
    first = _tuners(f"return [{_spec('one')}]", mark=mark, hook="first()")
    second = f"\n{mark}\ndef second():\n    return [{_spec('two')}]\n"
    again = second.replace("'two'", "'one'")
    (record,) = load_plugins(FREE, [install_plugin("pair", first + second)]).records
    assert sorted(record.provides()["tuner"]) == ["one", "two"]
    (record,) = load_plugins(FREE, [install_plugin("twin", first + again)]).records
    assert _outcome(record) == ("broken", "collect", "lmflow_register_tuners gives the name 'one' twice")


def test_a_hook_may_give_nothing(install_plugin: Install) -> None:
    (record,) = load_plugins(FREE, [install_plugin("empty", _tuners("return None"))]).records
    assert (record.status, record.specs) == ("ok", ())


def test_an_entry_point_may_name_an_object(install_plugin: Install) -> None:
    source = _with(
        "class Plugin:\n"
        "    __slots__ = ()\n"
        "    @hookimpl\n"
        f"    def lmflow_register_tuners(self):\n        return [{_spec('held')}]\n"
        "PLUGIN = Plugin()\n"
    )
    module = install_plugin("object", source)
    (record,) = load_plugins(FREE, [EntryPoint("object", f"{module.value}:PLUGIN", module.group)]).records
    assert (record.status, record.provides()) == ("ok", {"tuner": ["held"]})


def test_two_plugins_of_one_module_do_not_both_load(install_plugin: Install) -> None:
    first = install_plugin("first", GOOD)
    second = EntryPoint("second", first.value, first.group)
    records = load_plugins(FREE, [second, first]).records
    assert [(record.name, record.status, record.stage) for record in records] == [
        ("first", "ok", "loaded"),
        ("second", "broken", "register"),
    ]
    assert (records[1].error or "").startswith("ValueError: Plugin already registered under a different name: second=")


REQUIREMENTS: dict[str, bool] = {
    "lmflow-core": True,
    "lmflow-core>=0.1": True,
    "lmflow-core>=0.1.1": False,
    "lmflow-core<=0.1": True,
    "lmflow-core<=0.0.9": False,
    "lmflow-core>0.0.9": True,
    "lmflow-core>0.1": False,
    "lmflow-core<0.2": True,
    "lmflow-core<0.1": False,
    "lmflow-core==0.1": True,
    "lmflow-core==0.2": False,
    "lmflow-core==0.1.*": True,
    "lmflow-core==0.2.*": False,
    "lmflow-core!=0.2": True,
    "lmflow-core!=0.1.0": False,
    "lmflow-core!=0.1.*": False,
    "lmflow-core~=0.1": True,
    "lmflow-core~=0.1.0": True,
    "lmflow-core~=0.2": False,
    "lmflow-core===0.1.0": False,
    "LMFlow_Core >=0.2, <0.3": False,
    "lmflow-core[testing]>=0.3": False,
    "lmflow-core @ https://example.org/core.whl": True,
    "lmflow-corex>=9": True,
    "lmflow-core>=9; extra == 'new'": True,
}


@pytest.mark.parametrize("requirement", REQUIREMENTS)
def test_the_range_of_core_versions_is_checked_before_anything_is_imported(
    install_plugin: Install, monkeypatch: pytest.MonkeyPatch, requirement: str
) -> None:
    monkeypatch.setattr(lmflow_core, "__version__", "0.1.0")
    (record,) = load_plugins(FREE, [install_plugin("good", GOOD, requires=["click>=8", requirement])]).records
    assert record.status == ("ok" if REQUIREMENTS[requirement] else "incompatible")
    assert ("fake_lmflow_good" in sys.modules) is REQUIREMENTS[requirement]


def test_an_incompatible_plugin_tells_what_it_needs(install_plugin: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lmflow_core, "__version__", "0.4.1")
    entry = install_plugin("yarn", "raise RuntimeError('imported')", requires=["lmflow-core (>=0.3, <0.4)"])
    (record,) = load_plugins(FREE, [entry]).records
    assert _outcome(record) == ("incompatible", "incompatible", "needs lmflow-core>=0.3,<0.4, have 0.4.1")
    assert not record.healthy


def test_two_plugins_of_one_name_are_both_left_out(install_plugin: Install) -> None:
    entries = [
        install_plugin("lora", "raise RuntimeError('imported')", distribution="peft-x", version="1.2"),
        install_plugin("lora", "raise RuntimeError('imported')", version="0.4.0"),
        install_plugin("good", GOOD),
    ]
    plugins = load_plugins(FREE, entries)
    good, *twins = plugins.records
    assert good.status == "ok"
    assert [twin.distribution for twin in twins] == ["lmflow-lora", "peft-x"]
    for twin in twins:
        message = "lmflow-lora 0.4.0 and peft-x 1.2 declare a plugin 'lora'; uninstall all but one"
        assert _outcome(twin) == ("conflict", "conflict", message)
        assert not twin.healthy


def test_names_that_differ_in_spelling_only_are_one(install_plugin: Install) -> None:
    assert [short_name(name) for name in ("lora", "lmflow-lora", " LMFlow_LoRA ")] == ["lora"] * 3
    entries = [
        install_plugin("My_Plugin", GOOD, distribution="one"),
        install_plugin("lmflow-my-plugin", GOOD, distribution="two"),
    ]
    assert [record.status for record in load_plugins(FREE, entries).records] == ["conflict", "conflict"]
    policy = PluginPolicy.from_environment({"LMFLOW_DISABLE_PLUGINS": "my_plugin"})
    (record,) = load_plugins(policy, entries[:1]).records
    assert (record.name, record.status) == ("my-plugin", "disabled")


DISABLED: dict[str, tuple[dict[str, str], list[str], str]] = {
    "LMFLOW_DISABLE_PLUGINS": (
        {"LMFLOW_DISABLE_PLUGINS": " lmflow-bad , ,other"},
        [],
        "disabled by LMFLOW_DISABLE_PLUGINS",
    ),
    "LMFLOW_PLUGINS": ({"LMFLOW_PLUGINS": "good"}, [], "disabled by LMFLOW_PLUGINS, which does not list it"),
    "--no-plugin": ({}, ["LMFlow_Bad"], "disabled by --no-plugin"),
    "both": ({"LMFLOW_DISABLE_PLUGINS": "bad", "LMFLOW_PLUGINS": "bad,good"}, ["bad"], "disabled by --no-plugin"),
}


@pytest.mark.parametrize("way", DISABLED)
def test_a_disabled_plugin_is_never_imported(install_plugin: Install, way: str) -> None:
    environment, no_plugin, cause = DISABLED[way]
    entries = [install_plugin("bad", "raise RuntimeError('imported')"), install_plugin("good", GOOD)]
    plugins = load_plugins(PluginPolicy.from_environment(environment, no_plugin), entries)
    bad, good = plugins.records
    assert _outcome(bad) == ("disabled", "disabled", cause)
    assert "fake_lmflow_bad" not in sys.modules
    assert good.status == "ok"
    assert plugins.unhealthy() == []


def test_an_empty_list_of_plugins_lets_none_load(install_plugin: Install) -> None:
    policy = PluginPolicy.from_environment({"LMFLOW_PLUGINS": ""})
    (record,) = load_plugins(policy, [install_plugin("good", GOOD)]).records
    assert record.status == "disabled"


def test_a_name_that_matches_no_plugin_is_told(install_plugin: Install) -> None:
    environment = {"LMFLOW_DISABLE_PLUGINS": "goood", "LMFLOW_PLUGINS": "good,xyzzy"}
    policy = PluginPolicy.from_environment(environment, ["nothing"])
    assert load_plugins(policy, [install_plugin("good", GOOD)]).warnings == (
        "LMFLOW_DISABLE_PLUGINS names the plugin 'goood', which is not installed. Did you mean 'good'?",
        "--no-plugin names the plugin 'nothing', which is not installed.",
        "LMFLOW_PLUGINS names the plugin 'xyzzy', which is not installed.",
    )


def test_strict_mode_raises_for_any_unhealthy_plugin(install_plugin: Install) -> None:
    entries = [
        install_plugin("bad", "import no_such_module"),
        install_plugin("old", GOOD, requires=["lmflow-core<0.1"]),
    ]
    policy = PluginPolicy.from_environment({"LMFLOW_STRICT_PLUGINS": "1"})
    message = (
        "LMFLOW_STRICT_PLUGINS is set and not every plugin is healthy: "
        "bad (import: ModuleNotFoundError: No module named 'no_such_module'); "
        f"old (incompatible: needs lmflow-core<0.1, have {lmflow_core.__version__})"
    )
    with pytest.raises(PluginError) as raised:
        load_plugins(policy, entries)
    assert str(raised.value) == message
    assert raised.value.exit_status == 2


@pytest.mark.parametrize("value", ["", "0"])
def test_strict_mode_is_off_unless_asked_and_disabling_satisfies_it(install_plugin: Install, value: str) -> None:
    entries = [install_plugin("bad", "import no_such_module")]
    assert load_plugins(PluginPolicy.from_environment({"LMFLOW_STRICT_PLUGINS": value}), entries).unhealthy()
    policy = PluginPolicy.from_environment({"LMFLOW_STRICT_PLUGINS": "1"}, ["bad"])
    assert load_plugins(policy, entries).unhealthy() == []


def test_the_order_of_entry_points_does_not_matter(install_plugin: Install) -> None:
    entries = [
        install_plugin("good", GOOD),
        install_plugin("rival", _tuners(f"return [{_spec('good')}]")),
        install_plugin("bad", _tuners(f"yield {_spec()}", "raise RuntimeError('halfway')")),
        install_plugin("twin", GOOD, distribution="b"),
        install_plugin("twin", GOOD, distribution="a"),
    ]
    loaded = [load_plugins(FREE, order) for order in itertools.permutations(entries)]
    outcomes = {
        tuple((r.name, r.distribution, *_outcome(r), r.hooks, r.specs) for r in plugins.records) for plugins in loaded
    }
    assert len(outcomes) == 1
    assert {plugins.digest() for plugins in loaded} == {loaded[0].digest()}
    assert list(_by_name(loaded[0])) == ["bad", "good", "rival", "twin"]
    assert Catalogue(loaded[-1]).of(TunerSpec).conflicts() == {"good": ["good:good", "rival:good"]}


def test_the_digest_covers_the_distributions_in_use(install_plugin: Install) -> None:
    entries = [
        install_plugin("b", GOOD, version="2.0"),
        install_plugin("a", _tuners(f"return [{_spec()}]"), version="0.1"),
        install_plugin("bad", "import no_such_module"),
    ]
    expected = hashlib.sha256(b"lmflow-a==0.1\nlmflow-b==2.0").hexdigest()[:16]
    assert load_plugins(FREE, entries).digest() == expected
    assert load_plugins(FREE, entries[1:]).digest() != expected


def test_a_distribution_without_metadata_still_gets_its_line(install_plugin: Install, tmp_path: Path) -> None:
    install_plugin("half", GOOD)
    folder = tmp_path / "site" / "lmflow_half-1.0.dist-info"
    (folder / "METADATA").unlink()
    (record,) = load_plugins(FREE, Distribution.at(folder).entry_points).records
    assert (record.name, record.distribution, record.version, record.status) == ("half", "?", "?", "ok")
    bare = EntryPoint("half", "fake_lmflow_half", "lmflow")
    (record,) = load_plugins(FREE, [bare]).records
    assert (record.distribution, record.version, record.status) == ("?", "?", "ok")


def test_the_installed_plugins_are_found_and_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMFLOW_PLUGINS", "templates")
    statuses = {name: record.status for name, record in _by_name(load_plugins()).items()}
    assert statuses["templates"] == "ok"
    assert statuses["datasets"] == "disabled"
