"""The contract of exporters: what they write and where, that it is the model, and what a full disk leaves."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from lmflow_core.contracts.exporter import ExportReport
from lmflow_core.contracts.settings import ModelSettings
from lmflow_core.contracts.tokens import EncodedSequence
from lmflow_core.errors import LmflowError
from lmflow_core.models.opening import OpenModel, open_model
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.testing.adapters import make_adapter
from lmflow_core.testing.contracts.base import ComponentContract
from lmflow_core.testing.disks import changes, digests_of, full_behind, sizes_of
from lmflow_core.testing.tiny import CHATML

_IDS = [list(range(start, start + 24)) for start in (3, 40, 200)]
_TEXTS = [EncodedSequence(ids, ids) for ids in _IDS]
_NOT_PROMISED = "its spec does not promise that --model takes what it writes (reopens)"
_TEMPLATE = f"{{# exported #}}{CHATML}"


@dataclass(frozen=True)
class Written:
    """An export: of which model, where to, and what was told of it."""

    opened: OpenModel
    folder: Path
    report: ExportReport


class ExporterContract(ComponentContract):
    """What an exporter must do, tried on a small model and a LoRA adapter for it.

    Attributes:
        tolerance: share by which the likelihoods of what is reopened may differ, as of weights in fewer digits.
    """

    kind: ClassVar[str] = "exporter"
    tolerance: ClassVar[float] = 1e-3

    @pytest.fixture(scope="class")
    @classmethod
    def source(cls, peaked_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """Return the folder of a model that no other check touches."""
        return Path(shutil.copytree(peaked_model, tmp_path_factory.mktemp("given") / "model"))

    @pytest.fixture(scope="class")
    @classmethod
    def adapter(cls, source: Path, catalogue: Catalogue, tmp_path_factory: pytest.TempPathFactory) -> Path | None:
        """Return the folder of an adapter for the model; None where no plugin makes one."""
        return make_adapter(source, tmp_path_factory.mktemp("tuned") / "adapter", catalogue)

    @pytest.fixture(scope="class")
    @classmethod
    def given(cls, spec: Any, source: Path, adapter: Path | None) -> ModelSettings:
        """Return the model that is exported; an exporter of adapters is given one on it."""
        if spec.takes == "adapter" and adapter is None:
            pytest.skip("it exports adapters, and no plugin here makes one: install lmflow-lora")
        return ModelSettings(model=str(source), adapter=adapter if spec.takes == "adapter" else None, device="cpu")

    @pytest.fixture(scope="class")
    @classmethod
    def exported(
        cls,
        spec: Any,
        target: Any,
        option_values: Any,
        catalogue: Catalogue,
        given: ModelSettings,
        tmp_path_factory: Any,
    ) -> Written:
        """Return an export of the model."""
        exporter = cls.made(target, option_values)
        return cls._export(spec, exporter, catalogue, given, tmp_path_factory.mktemp("exported") / "result")

    @classmethod
    def _export(cls, spec: Any, exporter: Any, catalogue: Catalogue, given: ModelSettings, folder: Path) -> Written:
        """Export as the core does."""
        opened = open_model(given, catalogue)
        if spec.takes == "weights" or (spec.takes == "files" and opened.adapter is not None):
            opened.load()
        folder.mkdir()
        try:
            return Written(opened, folder, exporter.export(opened.model, folder, _TEMPLATE))
        except LmflowError as error:
            pytest.skip(f"it does not write the small model: give the options it needs: {error}")

    def test_the_report_tells_what_is_there(self, exported: Written) -> None:
        """The report names all files that are there, and none else, with their sizes."""
        there, told = sizes_of(exported.folder), dict(exported.report.files)
        assert there, "it wrote nothing"
        assert told == there, f"the report says {told}, and there is {there}"

    def test_it_writes_into_its_folder_alone(
        self,
        spec: Any,
        component: Any,
        catalogue: Catalogue,
        given: ModelSettings,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Files of the model and its adapter, beside the destination and in the working folder stay as they are."""
        here = tmp_path / "here"
        here.mkdir()
        monkeypatch.chdir(here)
        places = [Path(given.model).parent, here, *([given.adapter.parent] if given.adapter else [])]
        before = [digests_of(place) for place in places]
        (tmp_path / "parent").mkdir()
        self._export(spec, component, catalogue, given, tmp_path / "parent" / "result")
        for place, files in zip(places, before, strict=True):
            changed = changes(files, digests_of(place))
            assert not changed, f"it changed {', '.join(changed)} in {place.name}, which is not its destination"
        beside = [path.name for path in (tmp_path / "parent").iterdir() if path.name != "result"]
        assert not beside, f"it wrote beside its destination: {', '.join(beside)}"

    def test_it_writes_the_same_again(
        self, exported: Written, spec: Any, component: Any, catalogue: Catalogue, given: ModelSettings, tmp_path: Path
    ) -> None:
        """A second export of the model has the same bytes."""
        again = self._export(spec, component, catalogue, given, tmp_path / "result")
        changed = changes(digests_of(exported.folder), digests_of(again.folder))
        assert not changed, f"exported again, these files differ: {', '.join(changed)}"

    def test_the_model_stays_as_it_was(self, exported: Written, catalogue: Catalogue, given: ModelSettings) -> None:
        """The model that was exported gives the likelihoods it gave before."""
        wanted = _likelihoods(open_model(given, catalogue))
        found = _likelihoods(exported.opened)
        assert found == wanted, f"behind the export the likelihoods are {found}, and were {wanted}"

    def test_a_full_disk_is_told(
        self,
        exported: Written,
        provided: Any,
        values: dict[str, object],
        given: ModelSettings,
        tmp_path: Path,
        capfd: Any,
    ) -> None:
        """On a disk that refuses half of a file, the command ends with one error and leaves nothing."""
        size = max(sizes_of(exported.folder).values()) // 2
        command = [*_command(provided, values, given), "--output", str(tmp_path / "place" / "result")]
        try:
            with full_behind(size):
                status = _run(command)
        except ImportError:
            pytest.skip("this system knows no limit on the size of a file")
        told = [line for line in capfd.readouterr().err.splitlines() if line.startswith("lmflow: error:")]
        assert status != 0, f"it ends well where no file may have more than {size} bytes"
        assert len(told) == 1, f"{len(told)} errors are told where the disk is full: {told}"
        left = sorted(sizes_of(tmp_path))
        assert not left, f"where the disk is full it leaves {', '.join(left)}"

    def test_an_existing_result_is_kept(
        self, exported: Written, provided: Any, values: dict[str, object], given: ModelSettings, tmp_path: Path
    ) -> None:
        """A result that is there is kept without --overwrite, and replaced with it."""
        folder = tmp_path / "result"
        folder.mkdir()
        first = sorted(exported.report.files)[0]
        (folder / first).parent.mkdir(parents=True, exist_ok=True)
        (folder / first).write_bytes(b"mine")
        command = [*_command(provided, values, given), "--output", str(folder)]
        assert _run(command) != 0, "it writes where a result is already"
        assert (folder / first).read_bytes() == b"mine", f"it replaced {first} unasked"
        assert _run([*command, "--overwrite"]) == 0, "with --overwrite it does not write"
        assert (folder / first).read_bytes() != b"mine", f"with --overwrite it did not replace {first}"

    def _reopened(self, written: Written, spec: Any, catalogue: Catalogue) -> OpenModel:
        if not spec.reopens:
            pytest.skip(_NOT_PROMISED)
        files = [name for name in sizes_of(written.folder) if spec.suffix and name.endswith(spec.suffix)]
        reference = written.folder / files[0] if len(files) == 1 else written.folder
        return open_model(ModelSettings(model=str(reference), device="cpu"), catalogue)

    def test_it_reopens_as_the_model(
        self, exported: Written, spec: Any, catalogue: Catalogue, given: ModelSettings
    ) -> None:
        """Opened by --model, it gives the likelihoods of the model, if its spec says so."""
        found = _likelihoods(self._reopened(exported, spec, catalogue))
        wanted = _likelihoods(open_model(given, catalogue))
        assert found == pytest.approx(wanted, rel=self.tolerance), f"reopened {found}, and {wanted} of the model"

    def test_the_template_goes_with_it(
        self, spec: Any, component: Any, catalogue: Catalogue, given: ModelSettings, tmp_path: Path
    ) -> None:
        """A chat template given for a model that has none of its own goes with it, if its spec says it reopens."""
        if not spec.reopens:
            pytest.skip(_NOT_PROMISED)
        bare = shutil.copytree(given.model, tmp_path / "model", ignore=shutil.ignore_patterns("chat_template*"))
        without = ModelSettings(model=str(bare), device="cpu")
        written = self._export(spec, component, catalogue, without, tmp_path / "result")
        found = self._reopened(written, spec, catalogue).model.tokenizer.chat_template
        assert found == _TEMPLATE, f"the chat template is {found!r}, where {_TEMPLATE!r} was to go with it"

    def test_an_adapter_is_merged(
        self,
        exported: Written,
        spec: Any,
        component: Any,
        catalogue: Catalogue,
        source: Path,
        adapter: Path | None,
        tmp_path: Path,
    ) -> None:
        """With an adapter on the model, the merged model is written."""
        if spec.takes == "adapter":
            return
        if adapter is None:
            pytest.skip("no plugin here makes an adapter: install lmflow-lora")
        given = ModelSettings(model=str(source), adapter=adapter, device="cpu")
        merged = self._export(spec, component, catalogue, given, tmp_path / "result")
        changed = changes(digests_of(exported.folder), digests_of(merged.folder))
        assert changed, "with an adapter it writes the same bytes as without"
        if spec.reopens:
            found = _likelihoods(self._reopened(merged, spec, catalogue))
            wanted = _likelihoods(open_model(given, catalogue))
            told = f"the adapter is not as it was in what is written (merge it first): {found}, not {wanted}"
            assert found == pytest.approx(wanted, rel=self.tolerance), told


def _likelihoods(opened: OpenModel) -> list[float]:
    opened.model.load()  # once; what is loaded, perhaps with an adapter, stays
    model = opened.model if opened.tuner is None else opened.load()
    return [score.nll for score in model.score(_TEXTS)]


def _run(command: list[str]) -> int:
    from lmflow_core.cli.main import run

    return run(command)


def _command(provided: Any, values: dict[str, object], given: ModelSettings) -> list[str]:
    """Return the command line of an export, without its output."""
    command = ["export", "--model", given.model, "--format", provided.qualified]
    if given.adapter is not None:
        command += ["--adapter", str(given.adapter)]
    for name, value in values.items():
        texts = value if isinstance(value, list | tuple) else [value]
        command += [f"--{name.replace('_', '-')}", ",".join(map(str, texts))]
    return command
