"""The plugin of the tutorial, built and installed as it is written there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path

from lmflow_core.testing.distributions import core_range

_PAGE = Path(__file__).parents[2] / "docs" / "writing-a-plugin.md"


def _files(section: str) -> dict[str, str]:
    """Return the files of a section of the page by name."""
    (text,) = (part for part in re.split(r"^#+ ", _PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
               if part.startswith(f"{section}\n"))  # fmt: skip
    return dict(re.findall(r"`([\w.]+)`[^`]*:\n\n```\w+\n(.*?)```", text, re.DOTALL))


def _run(*command: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(path)} if path else dict(os.environ)
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


def test_the_tutorials_plugin_works(tmp_path: Path) -> None:
    files = _files("Writing a plugin")
    assert set(files) == {"pyproject.toml", "lmflow_pirate.py"}
    source, site = tmp_path / "source", tmp_path / "site"
    source.mkdir()
    for name, text in files.items():
        (source / name).write_text(text, encoding="utf-8")
    built = _run(
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-build-isolation",
        "--no-deps",
        "--no-index",
        "-w",
        str(tmp_path),
        str(source),
    )
    assert built.returncode == 0, built.stderr
    zipfile.ZipFile(next(tmp_path.glob("*.whl"))).extractall(site)

    lmflow = (sys.executable, "-m", "lmflow_core")
    listed = _run(*lmflow, "plugins", path=site)
    assert listed.returncode == 0, listed.stderr
    assert re.search(r"^pirate +0\.1\.0 +ok +1 template$", listed.stdout, re.MULTILINE)
    shown = _run(*lmflow, "templates", "show", "pirate", path=site).stdout
    assert shown == "Landlubber: What is 2 + 3?\nCaptain: 5</s>Landlubber: And 2 * 3?\nCaptain: \n"


def _install(site: Path, name: str, files: Mapping[str, str]) -> None:
    """Write a package ``lmflow_{name}`` of some files into a folder, as an installer would."""
    package, facts = site / f"lmflow_{name}", site / f"lmflow_{name}-0.1.0.dist-info"
    texts = {
        **{package / file: text for file, text in files.items()},
        package / "__init__.py": "",
        facts / "METADATA": f"Metadata-Version: 2.1\nName: lmflow-{name}\nVersion: 0.1.0\n"
        f"Requires-Dist: lmflow-core{core_range()}\nRequires-Dist: lmflow-transformers{core_range()}\n",
        facts / "entry_points.txt": f"[lmflow]\n{name} = lmflow_{name}.plugin\n",
    }
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def test_the_tutorials_decoder_answers(tiny_model: Path, tmp_path: Path) -> None:
    files = _files("A decoder")
    assert set(files) == {"plugin.py", "decoder.py"}
    _install(tmp_path / "site", "restless", files)
    lmflow = (sys.executable, "-m", "lmflow_core", "generate", "--model", str(tiny_model), "--max-new-tokens", "12")

    def answers(decoder: str) -> tuple[list[str], str]:
        prompts, output = tmp_path / "prompts.txt", tmp_path / f"{decoder}.jsonl"
        prompts.write_text("one\ntwo\n", encoding="utf-8")
        both = ("--prompts", str(prompts), "--output", str(output), "--decoder", decoder)
        written = _run(*lmflow, *both, path=tmp_path / "site")
        assert written.returncode == 0, written.stderr
        alone = _run(*lmflow, "--prompt", "two", "--decoder", decoder, "--json", path=tmp_path / "site")
        rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
        return [row["answer"] for row in rows], json.loads(alone.stdout)["text"]

    plain, restless = answers("sampling"), answers("restless")
    assert plain[0][1] == plain[1]
    assert restless[0][1] == restless[1] != plain[1]
    assert all(one != other for one, other in pairwise(restless[1]))


def test_the_tutorials_objective_and_optimizer_train(
    tiny_model: Path, write_rows: Callable[..., Path], tmp_path: Path
) -> None:
    files = _files("An objective")
    assert set(files) == {"plugin.py", "objective.py"}
    (optimizer,) = re.findall(r"```python\n(import torch\n.*?)```", _PAGE.read_text(encoding="utf-8"), re.DOTALL)
    declared = """
from lmflow_core.api import OptimizerSpec

@hookimpl
def lmflow_register_optimizers():
    yield OptimizerSpec(name="plain-descent", target="lmflow_pairs.optimizer:Sgd", summary="Plain descent.")
"""
    _install(
        tmp_path / "site",
        "pairs",
        {
            "plugin.py": files["plugin.py"] + declared,
            "objective.py": files["objective.py"],
            "optimizer.py": optimizer,
        },
    )
    (row,) = re.findall(r'`(\{"instruction".*?\})`', _PAGE.read_text(encoding="utf-8"))
    command = (
        *(
            sys.executable,
            "-m",
            "lmflow_core",
            "finetune",
            "--model",
            str(tiny_model),
            "--output",
            str(tmp_path / "out"),
        ),
        *(
            "--dataset",
            str(write_rows([json.loads(row)])),
            "--objective",
            "pairs",
            "--optimizer",
            "plain-descent",
            "--max-steps",
            "2",
        ),
    )
    finished = _run(*command, path=tmp_path / "site")
    assert finished.returncode == 0, finished.stderr
    record = json.loads((tmp_path / "out" / "run.json").read_text(encoding="utf-8"))
    assert (record["loss_unit"], list(record["curves"]["training"])) == ("pairs", ["accuracy"])
