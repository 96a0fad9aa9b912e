"""What is published, built and used as those who install it do: wheels alone, in environments of their own."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lmflow_core.testing.environments import Environment, link_third_party
from lmflow_core.testing.scripts import load_script

_ROOT = Path(__file__).parents[2]
_BUILD = _ROOT / "dev" / "build.py"
_ROWS = [{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello you"}]}] * 4
_MAKES = "import sys; from lmflow_core.testing.tiny import make_tiny_model; make_tiny_model(sys.argv[1])"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every distribution, built and checked by the command that a release runs."""
    folder = tmp_path_factory.mktemp("published") / "dist"
    folder.mkdir()
    (folder / "lmflow_core-0.0.1-py3-none-any.whl").write_text("of yesterday")
    built = subprocess.run([sys.executable, str(_BUILD), str(folder)], capture_output=True, text=True)
    assert built.returncode == 0, f"{built.stdout}\n{built.stderr}"
    return folder


def _names(dist: Path) -> list[str]:
    return [wheel.name.partition("-")[0].replace("_", "-") for wheel in sorted(dist.glob("*.whl"))]


@pytest.fixture(scope="module")
def environment(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with every wheel, beside every third party."""
    folder = tmp_path_factory.mktemp("whole")
    made = Environment.create(folder / "venv", link_third_party(folder / "third_party"))
    made.install(dist, _names(dist))
    return made


def test_there_are_a_wheel_and_an_sdist_of_every_distribution(dist: Path) -> None:
    projects = [_ROOT, *(path.parent for kind in ("plugins", "contrib") for path in _ROOT.glob(f"{kind}/*/src"))]
    assert len(_names(dist)) == len(projects) == len(list(dist.glob("*.tar.gz")))
    assert set(_names(dist)) == {"lmflow-core", *(project.name for project in projects[1:])}
    assert {path.suffix for path in dist.iterdir()} == {".whl", ".gz"}


def test_all_wheels_together_train_measure_export_and_answer(environment: Environment, tmp_path: Path) -> None:
    def run(*command: object) -> str:
        finished = environment.run(*command, cwd=tmp_path, OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")
        assert finished.returncode == 0, f"{command}\n{finished.stdout}\n{finished.stderr}"
        return finished.stdout

    listed = json.loads(run("lmflow", "plugins", "--check", "--json"))
    assert {entry["status"] for entry in listed["plugins"]} == {"ok"}
    assert all(entry["location"].startswith(str(environment.folder)) for entry in listed["plugins"])
    assert len(listed["plugins"]) == len(list(_ROOT.glob("plugins/*/src"))) + len(list(_ROOT.glob("contrib/*/src")))

    run("python", "-c", _MAKES, "tiny")
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, _ROWS)))
    here = ("--device", "cpu")
    trained = ("--dataset", "rows.jsonl", "--tuner", "lora", "--max-steps", "3", "--output", "lora", *here)
    run("lmflow", "finetune", "--model", "tiny", *trained)
    measured = json.loads(run("lmflow", "evaluate", "--model", "lora", "--dataset", "rows.jsonl", "--json", *here))
    assert measured["tokens"] > 0
    run("lmflow", "merge", "--model", "tiny", "--adapter", "lora", "--output", "merged", *here)
    assert (tmp_path / "merged" / "README.md").read_text().startswith("---\nlibrary_name: transformers\n")
    gguf = ("--format", "gguf", "--pre-tokenizer", "smollm", "--output", "tiny.gguf")
    run("lmflow", "export", "--model", "merged", *gguf, *here)
    answer = ("--prompt", "Hi", "--max-new-tokens", "3", "--json")
    told = json.loads(run("lmflow", "generate", "--model", "merged", *answer, *here))
    assert isinstance(told, dict)


def _needed_by_the_core() -> Iterator[importlib.metadata.Distribution]:
    """Yield what the core requires, what that requires, and so on."""
    waiting, seen = ["lmflow-core"], set()
    while waiting:
        distribution = importlib.metadata.distribution(waiting.pop())
        for requirement in distribution.requires or ():
            name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
            if "extra ==" not in requirement and name not in seen:
                seen.add(name)
                waiting.append(name)
                yield importlib.metadata.distribution(name)


@pytest.fixture
def core_alone(dist: Path, tmp_path: Path) -> Environment:
    """An environment with the core and what it requires, and nothing else."""
    kept = {path.parts[0].lower() for found in _needed_by_the_core() for path in found.files or ()}
    there = link_third_party(tmp_path / "all")
    others = [entry.name.lower() for entry in there.iterdir() if entry.name.lower() not in kept]
    third_party = link_third_party(tmp_path / "third_party", without=others)
    assert {"click", "pluggy", "rich", "yaml"} <= {entry.name for entry in third_party.iterdir()}
    made = Environment.create(tmp_path / "venv", third_party)
    made.install(dist, ["lmflow-core"])
    return made


def test_the_core_alone_says_what_to_install(core_alone: Environment, tmp_path: Path) -> None:
    def run(*command: object) -> tuple[int, str, str]:
        finished = core_alone.run(*command, cwd=tmp_path)
        return finished.returncode, finished.stdout, finished.stderr

    for module in ("torch", "transformers", "numpy", "jinja2", "pytest"):
        assert run("python", "-c", f"import {module}")[0] == 1, f"{module} is there"
    assert run("lmflow", "plugins", "--check")[:2] == (
        0,
        "PLUGIN  VERSION  STATUS  PROVIDES\n0 plugins: none.  Details: lmflow plugins show NAME\n",
    )
    status, shown, _ = run("lmflow", "--help")
    assert status == 0
    assert "finetune" in shown
    assert run("lmflow", "doctor")[0] == 0
    line = ("--model", "tiny", "--dataset", "rows.jsonl", "--output", "out")
    missing = "It is provided by lmflow-{0}, not installed: in a checkout of LMFlow, pip install ./plugins/lmflow-{0}\n"
    # The runtime comes first, whatever else is asked for: every other plugin of training builds on it.
    for more in ((), ("--tuner", "lora")):
        status, _, told = run("lmflow", "finetune", *line, *more)
        assert (status, told) == (2, "lmflow: error: unknown objective 'sft'. " + missing.format("transformers"))
    status, _, told = run("lmflow", "serve")
    assert status == 2
    assert told.endswith(missing.format("serve"))
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def script() -> Any:
    return load_script(_BUILD)


def _project(folder: Path, metadata: str = "", *, licence: str = "mine") -> Path:
    package = folder / "lmflow_x"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text('"""A module."""\n__version__ = "1.0"\n')
    (package / "py.typed").write_text("")
    (folder / "LICENSE").write_text(licence)
    (folder / "README.md").write_text("# X\n")
    (folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["flit_core"]\nbuild-backend = "flit_core.buildapi"\n\n'
        '[project]\nname = "lmflow-x"\nversion = "1.0"\ndescription = "A."\nlicense = "Apache-2.0"\n'
        f'license-files = ["LICENSE"]\nreadme = "README.md"\n{metadata}'
    )
    return folder


def test_a_sound_distribution_passes(script: Any, tmp_path: Path) -> None:
    built = script.build(_project(tmp_path / "x"), tmp_path / "dist")
    assert (built.name, built.problems) == ("lmflow-x", ())
    with tarfile.open(built.sdist) as archive:
        assert "lmflow_x-1.0/LICENSE" in archive.getnames()


def test_what_an_index_would_refuse_is_told(script: Any, tmp_path: Path) -> None:
    project = _project(tmp_path / "x", 'dependencies = ["lmflow-core", "y @ https://example.com/y.whl"]\n')
    (project / "lmflow_x" / "left_out.py").write_text("VALUE = 1\n")
    (project / "lmflow_x" / "linked.py").symlink_to("__init__.py")
    (project / "lmflow_x" / "py.typed").unlink()
    pyproject = project / "pyproject.toml"
    text = pyproject.read_text().replace('readme = "README.md"\n', "").replace("Apache-2.0", "MIT")
    pyproject.write_text(f'{text}\n[tool.flit.sdist]\nexclude = ["lmflow_x/left_out.py"]\n')
    assert set(script.build(project, tmp_path / "dist").problems) == {
        "the sdist lacks lmflow_x/left_out.py",
        "the sdist holds links",
        "the wheel lacks py.typed",
        *(
            f"the {kind}{told}"
            for kind in ("wheel", "sdist")
            for told in (
                ": no description in Markdown",
                ": the licence is MIT",
                ": lmflow-core has no end",
                ": y is required from a place, which an index refuses",
            )
        ),
    }
