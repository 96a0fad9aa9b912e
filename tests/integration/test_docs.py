"""What pages show is run: every command, every file, every piece of Python, in order, with a tiny model."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lmflow_core.testing.documents import Block, blocks_of, commands_of
from lmflow_core.testing.stand_in import NAME, REPLACED, install_stand_in
from lmflow_core.testing.terminal import Terminal

_ROOT = Path(__file__).parents[2]
_DOCS = _ROOT / "docs"
# Another test builds and installs what this page shows.
_ELSEWHERE = {_DOCS / "writing-a-plugin.md": "test_plugin_tutorial.py"}
# Written from docstrings, whose examples tests/meta/test_hooks.py runs.
_GENERATED = _DOCS / "reference"
_PAGES = [
    path
    for path in (
        _ROOT / "README.md",
        *sorted(_DOCS.rglob("*.md")),
        *sorted(_ROOT.glob("plugins/*/README.md")),
        *sorted(_ROOT.glob("contrib/*/README.md")),
    )
    if not path.is_relative_to(_GENERATED) and path not in _ELSEWHERE
]
_SHOWN = ("bash", "python", "yaml")
# Words for what is read, not run.
_READ = ("", "text", "json", "jsonl", "toml", "jinja", "svg")
# Why a block is not run here.
REASONS = {
    "gpu": "computes on a GPU",
    "network": "downloads something",
    "machines": "takes several machines",
    "ollama": "takes another program, Ollama",
    "llama.cpp": "takes llama.cpp's binding, which not every environment has; where it is there the block is run",
    "models": "takes folders of models that are not here",
    "checkout": "works on a whole checkout: other tests or CI run it",
}
# What the README begins with takes minutes; tests/integration/test_readme.py runs it as it stands.
_SHORTER = {
    "make quickstart": "lmflow finetune examples/quickstart.yaml --max-steps 2 --output runs/quickstart",
    ". .venv/bin/activate": "true",
    "make test": "true",
}
# Enough to see that a command works, added where a page leaves it open; pages show runs that learn something.
_BOUNDS = {
    "lmflow finetune ": "--max-steps 2",
    "lmflow distill-draft ": "--max-steps 2",
    "lmflow generate ": "--max-new-tokens 16",
    "lmflow chat ": "--max-new-tokens 16",
}
# Processes of their own take seconds to start. What follows such a line needs nothing of it, so the same line of
# another page is not run again.
_ONCE = ("torchrun ", "lmflow webui ")
_done: set[str] = set()
_TYPED = "What is a template?\n/exit\n"


def _name(page: Path) -> str:
    return page.relative_to(_ROOT).as_posix()


def _shown(page: Path) -> list[Block]:
    """Return the blocks of a page that are run, and those that are files."""
    return [block for block in blocks_of(page) if block.language in _SHOWN or block.title]


def _kept_from_running(block: Block) -> bool:
    missing = set(block.needs)
    if importlib.util.find_spec("llama_cpp"):
        missing.discard("llama.cpp")
    return bool(missing)


@pytest.fixture(scope="module")
def site(smollm2_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stand-in")
    install_stand_in(folder, smollm2_folder)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    here = tmp_path / "here"
    here.mkdir()
    (here / "examples").symlink_to(_ROOT / "examples")
    return here


def _chat_model() -> Any:
    from lmflow_core.config.request import resolve
    from lmflow_core.config.schema import CHAT
    from lmflow_core.generation.chat_model import ChatModelOpener
    from lmflow_core.plugins.discovery import load_plugins
    from lmflow_core.plugins.policy import PluginPolicy
    from lmflow_core.plugins.registry import Catalogue

    catalogue = Catalogue(load_plugins(PluginPolicy.from_environment()))
    return ChatModelOpener(resolve(CHAT, {"model": NAME, "max_new_tokens": 8}, catalogue), catalogue)()


# Names that the Python of a page takes as given.
_GIVEN: dict[str, dict[str, Callable[[], Any]]] = {"docs/how-generation-works.md": {"model": _chat_model}}


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in _PAGES if _shown(page)], ids=_name)
def test_what_a_page_shows_works(
    page: Path, folder: Path, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = _shown(page)
    own = tmp_path / "site"
    own.mkdir()
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("PYTHONPATH", str(site), prepend=":")
    environment = {"LMFLOW_DISABLE_PLUGINS": REPLACED, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with Terminal(folder, own, {**environment, "XDG_CACHE_HOME": str(tmp_path / "cache")}, _TYPED) as terminal:
        names = {name: make() for name, make in _GIVEN.get(_name(page), {}).items()}
        for block in blocks:
            if not _kept_from_running(block):
                _show(block, terminal, folder, names)


def _show(block: Block, terminal: Terminal, folder: Path, names: dict[str, Any]) -> None:
    if block.title is not None:
        path = folder / block.title
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text, encoding="utf-8")
    elif block.language == "python":
        exec(compile(terminal.with_ports(block.text), f"line {block.line}", "exec"), names)
    else:
        for command in commands_of(block):
            if command not in _done:
                terminal.run(_shorter(command))
            if command.startswith(_ONCE):
                _done.add(command)


def _shorter(command: str) -> str:
    for beginning, bound in _BOUNDS.items():
        if command.startswith(beginning) and bound.partition(" ")[0] not in command:
            return f"{command} {bound}"
    return _SHORTER.get(command, command)


@pytest.mark.parametrize("page", [*_PAGES, *_ELSEWHERE], ids=_name)
def test_a_block_that_is_not_run_says_why(page: Path) -> None:
    for block in blocks_of(page):
        where = f"{_name(page)}, line {block.line}"
        assert block.language in (*_SHOWN, *_READ), f"{where}: blocks are {', '.join(_SHOWN)}, or are read only"
        assert block.needs <= set(REASONS), f"{where}: a reason is one of {', '.join(REASONS)}"
        if block.language == "yaml":
            assert block.title or block.needs, f'{where}: name the file, as in ```yaml title="run.yaml"'
        if block.language not in _SHOWN:
            assert "lmflow " not in block.text.replace("lmflow [", "") or block.title or block.needs, (
                f"{where}: a command stands in a block of bash"
            )


@pytest.mark.parametrize("page", _PAGES, ids=_name)
def test_a_file_that_a_page_shows_is_used_below(page: Path) -> None:
    blocks = blocks_of(page)
    for n, block in enumerate(blocks):
        if block.title is not None:
            below = "".join(later.text for later in blocks[n + 1 :])
            names = (block.title, block.title.partition("/")[0])
            assert any(name in below for name in names), f"{_name(page)}, line {block.line}: nothing uses {block.title}"


def test_another_test_runs_what_is_left_to_it() -> None:
    for page, test in _ELSEWHERE.items():
        assert f'"{page.name}"' in (Path(__file__).parent / test).read_text(encoding="utf-8")
