"""``lmflow plugins check``: what it shows, what it exits with, and what it says where it cannot check."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lmflow_core.plugins import discovery
from lmflow_core.testing.contracts import TunerContract
from lmflow_core.testing.distributions import Project

_SOURCE = """
from lmflow_core.api import TunerSpec, hookimpl

@hookimpl
def lmflow_register_tuners():
    yield TunerSpec(name="clumsy", target="lmflow_clumsy:Clumsy", summary="It forgets most")

class Clumsy:
    def __init__(self, options): pass
    def plan(self, plan): return plan
"""


def test_a_healthy_plugin_passes(lmflow_cli: Callable[..., Any]) -> None:
    told = lmflow_cli("plugins", "check", "lisa", "--kind", "plugin")
    assert told.status == 0, told.stdout
    first, *lines, _, last = told.stdout.splitlines()
    assert first == "plugin lisa"
    assert all(line.startswith("  ok      ") for line in lines)
    assert last == f"{len(lines)} checks: {len(lines)} passed."


def test_a_faulty_plugin_is_told_what_is_wrong(
    lmflow_cli: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Project("lmflow-clumsy", {"lmflow_clumsy.py": _SOURCE}, {"clumsy": "lmflow_clumsy"})
    entries = [*discovery.installed_entry_points(), *project.unpack(tmp_path).entry_points]
    monkeypatch.setattr(discovery, "installed_entry_points", lambda: entries)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    told = lmflow_cli("plugins", "check", "clumsy", "--json")
    assert told.status == 1
    document = told.json()
    failed = {check["check"]: check["message"] for check in document["checks"] if check["outcome"] == "failed"}
    assert document["counts"]["failed"] == len(failed)
    assert failed["test_the_spec_describes_itself"] == "the summary 'It forgets most' does not end with a full stop"
    assert failed["test_its_range_of_the_core_ends"] == "lmflow-core is not among its dependencies"
    assert "does not fit its contract: it has no method 'check'" in failed["test_the_target_fits_its_protocol"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["lissa"], "no plugin 'lissa' is installed. Did you mean 'lisa'?"),
        (["lisa", "--option", "x"], "--option x: write NAME=VALUE"),
        (["lisa", "--kind", "tunr"], "'tunr' is not one of"),
    ],
)
def test_wrong_requests_are_refused(arguments: list[str], told: str, lmflow_cli: Callable[..., Any]) -> None:
    result = lmflow_cli("plugins", "check", *arguments)
    assert (result.status, told in result.stderr) == (2, True), result.stderr


def test_without_pytest_it_says_what_to_install(
    lmflow_cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pytest" else find_spec(name))
    told = lmflow_cli("plugins", "check", "lisa")
    assert told.status == 2
    assert "lmflow plugins check needs pytest: pip install 'pytest>=8.4'" in told.stderr


def test_a_check_is_not_replaced_in_silence() -> None:
    def check(self: object) -> None:
        raise AssertionError

    @pytest.mark.xfail
    def given_up_without_a_word(self: object) -> None:
        raise AssertionError

    @pytest.mark.xfail(reason="sampled by the hardware")
    def given_up(self: object) -> None:
        raise AssertionError

    for replaced in (check, given_up_without_a_word):
        with pytest.raises(TypeError, match=r"Quiet\.test_the_loss_falls replaces a check of its contract"):
            type("Quiet", (TunerContract,), {"test_the_loss_falls": replaced})
    assert type("Open", (TunerContract,), {"test_the_loss_falls": given_up, "test_more": check})
