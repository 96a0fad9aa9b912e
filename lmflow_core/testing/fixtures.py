"""A pytest plugin with what tests of LMFlow and of its plugins share. Nothing here is applied unasked.

Nothing is imported at the top that a test of the core alone would not have: torch and transformers are imported by
the fixtures that need them.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True)
class CliResult:
    """What a command line left: its exit status and what it wrote."""

    status: int
    stdout: str
    stderr: str

    def json(self) -> Any:
        """Return the JSON document on stdout."""
        return json.loads(self.stdout)


@pytest.fixture
def lmflow_cli(capfd: pytest.CaptureFixture[str]) -> Callable[..., CliResult]:
    """Run ``lmflow`` command lines in this process: ``lmflow_cli("plugins", "--json")``."""
    from lmflow_core.cli.main import run

    def call(*arguments: object) -> CliResult:
        capfd.readouterr()
        status = run([str(argument) for argument in arguments])
        written = capfd.readouterr()
        return CliResult(status, written.out, written.err)

    return call


@pytest.fixture
def install_plugin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., importlib.metadata.EntryPoint]]:
    """Install a plugin of one module for the time of a test; gives the entry point, for ``load_plugins``.

    ``install_plugin("peft", source, distribution="peft-x", version="1.2", requires=["lmflow-core>=0.1,<0.2"])`` puts
    the source into the module ``fake_peft_x``.
    """
    from lmflow_core.testing.distributions import Project

    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(site)
    modules: list[str] = []

    def install(
        name: str, source: str, *, distribution: str = "", version: str = "1.0", requires: Sequence[str] = ()
    ) -> importlib.metadata.EntryPoint:
        distribution = distribution or f"lmflow-{name}"
        module = f"fake_{distribution.replace('-', '_')}"
        modules.append(module)
        project = Project(distribution, {f"{module}.py": source}, {name: module}, version, requires)
        (entry,) = project.unpack(site).entry_points
        return entry

    yield install
    for module in modules:
        sys.modules.pop(module, None)


@pytest.fixture
def write_rows(tmp_path: Path) -> Callable[..., Path]:
    """Write rows to a data file: ``write_rows([row, …])`` or ``write_rows([row, …], "name.jsonl")``."""

    def write(rows: list[Any], name: str = "data.json") -> Path:
        path = tmp_path / name
        lines = path.suffix == ".jsonl"
        text = "\n".join(json.dumps(row) for row in rows) if lines else json.dumps(rows)
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with a random two-layer Llama, a byte-level tokenizer and a ChatML template."""
    from lmflow_core.testing.tiny import make_tiny_model

    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def peaked_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with a model like :func:`tiny_model` that finds few tokens likely, as trained ones do."""
    from lmflow_core.testing.tiny import make_tiny_model

    folder = tmp_path_factory.mktemp("peaked") / "model"
    return make_tiny_model(folder, seed=1, initializer_range=0.3, sharpness=2.5)


@pytest.fixture(scope="session")
def smollm2_folder() -> Path:
    """Return the folder of the real SmolLM2-135M-Instruct, for slow tests."""
    from lmflow_smollm2.loader import cached_folder

    return cached_folder()


@pytest.fixture
def letters() -> Any:
    """Return a tokenizer without a vocabulary: one token for each character."""
    from lmflow_core.testing.letters import Letters

    return Letters()


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse connections to other machines, and let libraries look for models on this one only."""
    import socket

    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise ConnectionRefusedError(f"a test asked for {address[0]}; tests use no network")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
