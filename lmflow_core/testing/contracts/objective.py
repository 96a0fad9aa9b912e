"""The contract of objectives: a run that says what it did, learns, and is the same however it is cut."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from lmflow_core.contracts.model import LoadPlan
from lmflow_core.contracts.objective import MetricPoint, ObjectiveSpec, TrainingJob, TrainingReport
from lmflow_core.contracts.settings import TrainingSettings
from lmflow_core.contracts.tuner import TunerSpec
from lmflow_core.errors import LmflowError
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.testing.contracts.base import ComponentContract
from lmflow_core.testing.example_samples import EXAMPLES
from lmflow_core.testing.others import loaded
from lmflow_core.testing.rewards import Vowels
from lmflow_core.testing.tensors import differing, state_of

_STEPS, _CHECKPOINT = 6, 3
_FROZEN = "embed_tokens"


@dataclass(frozen=True)
class Run:
    """A run of an objective: its job, what it reports, and the weights before and after."""

    job: TrainingJob[Any]
    report: TrainingReport
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    tokenizer: str
    trains: Mapping[str, bool]

    @property
    def losses(self) -> list[float]:
        """The loss of each step."""
        return [point.value for point in self.report.training["loss"]]


class ObjectiveContract(ComponentContract):
    """What an objective must do, tried on a small model and examples of every kind that it names.

    One that scores its own samples is given a reward for those with a vowel. Options may name the model that the
    examples are learned by, ``{tiny_model}``, and another, ``{other_model}``.

    Attributes:
        learning_rate: with which the run learns within six steps.
        watched: the metric that tells whether it learns; None where samples of its own leave that to chance.
        falls: whether learning lowers that metric.
        tolerance: by how much, relatively, losses may differ when the same step is computed in other parts.
    """

    kind: ClassVar[str] = "objective"
    learning_rate: ClassVar[float] = 1e-2
    watched: ClassVar[str | None] = "loss"
    falls: ClassVar[bool] = True
    tolerance: ClassVar[float] = 1e-4

    @pytest.fixture(scope="class")
    @classmethod
    def other_model(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """Return the folder of another small model: a teacher, a reference, a judge."""
        from lmflow_core.testing.tiny import make_tiny_model

        return make_tiny_model(tmp_path_factory.mktemp("other") / "model", seed=1)

    @pytest.fixture(scope="class")
    @classmethod
    def training(
        cls, spec: ObjectiveSpec, target: Any, option_values: Any, values: Mapping[str, object], tiny_model: Path
    ) -> Any:
        """Return what runs the objective: ``training(folder, tuner=None, **settings)``."""
        kinds = [kind for kind in spec.examples if kind in EXAMPLES]
        if not kinds:
            pytest.skip(f"no examples of {', '.join(spec.examples)} for a model of text")

        def train(checkpoints: Path, *, tuner: Any = None, objective: Any = None, **changes: Any) -> Run:
            own = objective or cls.made(target, option_values)
            return cls._train(own, kinds, tiny_model, checkpoints, tuner, **changes)

        return train

    @classmethod
    def _train(
        cls, objective: Any, kinds: list[str], model: Path, checkpoints: Path, tuner: Any, **changes: Any
    ) -> Run:
        job = cls._job(objective, kinds, model, checkpoints, tuner, **changes)
        try:
            objective.check(job)
        except LmflowError as error:
            if cls.options:
                raise
            pytest.skip(f"it refuses a run without options; give options: {error}")
        before, tokenizer = state_of(job.model.network), job.model.tokenizer.fingerprint
        trains = {name: p.requires_grad for name, p in job.model.network.named_parameters()}
        report = objective.train(job)
        return Run(job, report, before, state_of(job.model.network), tokenizer, trains)

    @classmethod
    def _job(
        cls, objective: Any, kinds: list[str], model: Path, checkpoints: Path, tuner: Any, **changes: Any
    ) -> TrainingJob[Any]:
        from lmflow_core.data.encoding import Encoder
        from lmflow_core.templates.own import JinjaTemplate
        from lmflow_core.testing.jobs import make_job, rows_of

        examples = [example for kind in kinds for example in EXAMPLES[kind]]
        settings = {
            "lr": cls.learning_rate,
            "lr_scheduler_type": "constant",
            "warmup_ratio": 0,
            "batch_size": len(examples),
            "max_steps": _STEPS,
            "epochs": _STEPS,
            "logging_steps": 1,
        }
        job = make_job(
            model, checkpoints, TrainingSettings(**{**settings, **changes}), [], tuner=tuner, objective=objective
        )
        template = JinjaTemplate(job.model.tokenizer, str(job.model.tokenizer.chat_template))
        services: Any = job.services
        services.use_template(template, Encoder(job.model.tokenizer, template))
        services.use_rewards(Vowels(), job.model)
        rows = rows_of(services.encode(examples))
        measured = rows if "eval_steps" in changes else None
        return dataclasses.replace(job, data=rows, validation=measured)

    @pytest.fixture(scope="class")
    @classmethod
    def run(cls, training: Any, tmp_path_factory: pytest.TempPathFactory) -> Run:
        """Return a run of six steps."""
        folder = tmp_path_factory.mktemp("run") / "checkpoints"
        run: Run = training(folder, save_steps=_CHECKPOINT, save_total_limit=_STEPS)
        return run

    def test_the_plan_stays_a_plan(self, component: Any) -> None:
        """A load plan becomes a load plan, the one given is left as it is."""
        plan = LoadPlan()
        found = component.plan(plan)
        assert isinstance(found, LoadPlan), f"plan() gives {found!r}"
        assert plan == LoadPlan(), "plan() changes the plan that it is given"

    def test_the_report_is_complete(self, run: Run) -> None:
        """The report tells steps, tokens, seconds, memory, the unit, and a finite loss of every step."""
        report = run.report
        assert isinstance(report, TrainingReport), f"train() gives {report!r}"
        assert report.steps == _STEPS, f"it reports {report.steps} steps of {_STEPS}"
        counts = {"tokens": report.tokens, "seconds": report.seconds, "peak_memory_bytes": report.peak_memory_bytes}
        empty = [name for name, count in counts.items() if count <= 0]
        assert not empty, f"nothing is reported as {', '.join(empty)}"
        assert report.unit, "the report does not tell what the loss is the mean over"
        assert "loss" in report.training, f"no curve of the loss, only of {', '.join(report.training)}"
        for name, curve in report.training.items():
            assert all(isinstance(point, MetricPoint) for point in curve), f"the curve {name!r} holds other than points"
            assert all(math.isfinite(point.value) for point in curve), f"{name!r} is not finite: {curve}"
        steps = [point.step for point in report.training["loss"]]
        assert steps == list(range(1, _STEPS + 1)), f"the loss is told at the steps {steps}"

    def test_it_changes_the_weights(self, run: Run, spec: ObjectiveSpec) -> None:
        """Weights that train change."""
        if not self.options and set(spec.examples) == {"prompt"} and not any(run.losses):
            pytest.skip("its own samples teach nothing as they are judged without options: give options")
        assert differing(run.before, run.after), "no weight changed"

    def test_it_learns(self, run: Run, spec: ObjectiveSpec) -> None:
        """The metric that tells whether it learns gets better on examples that are seen again and again."""
        samples = set(spec.examples) == {"prompt"}
        if self.watched is None or (samples and type(self).watched is ObjectiveContract.watched):
            pytest.skip("whether it learns cannot be told from the loss of its own samples: give watched and falls")
        assert self.watched in run.report.training, f"no curve {self.watched!r}: {', '.join(run.report.training)}"
        curve = [point.value for point in run.report.training[self.watched]]
        better = curve[-1] < curve[0] if self.falls else curve[-1] > curve[0]
        assert better, f"{self.watched} went from {curve[0]} to {curve[-1]} in {len(curve)} steps"

    def test_a_seed_repeats_a_run(self, run: Run, training: Any, tmp_path: Path) -> None:
        """The same seed gives the same losses and weights."""
        again = training(tmp_path / "one")
        assert again.losses == run.losses, f"losses of the same run: {run.losses} and {again.losses}"
        assert not differing(run.after, again.after), "weights depend on more than the seed"

    def test_a_resumed_run_is_the_uninterrupted_one(self, run: Run, training: Any, tmp_path: Path) -> None:
        """A run that goes on from a checkpoint ends with the bits of one that was not interrupted."""
        begun = shutil.copytree(run.job.checkpoints, tmp_path / "checkpoints")
        for later in range(_CHECKPOINT + 1, _STEPS + 1):
            shutil.rmtree(begun / f"checkpoint-{later}", ignore_errors=True)
        resumed = training(begun, save_steps=_CHECKPOINT, save_total_limit=_STEPS)
        assert resumed.report.training == run.report.training, "the curves differ from those of one run"
        others = differing(run.after, resumed.after)
        assert not others, f"other weights than those of one run: {', '.join(others)}"

    @pytest.mark.parametrize(
        "parts", [{"micro_batch_tokens": 1}, {"pack_length": 200, "batch_size": 64}], ids=["micro-batches", "packed"]
    )
    def test_parts_of_a_step_add_up(self, run: Run, training: Any, tmp_path: Path, parts: dict[str, int]) -> None:
        """A step that is computed in parts, or from packed examples, has the loss of the whole."""
        found = training(tmp_path / "parts", max_steps=2, **parts).losses
        told = f"losses {found} with {parts}, and {run.losses[:2]} in one pass"
        assert found == pytest.approx(run.losses[:2], rel=self.tolerance, abs=self.tolerance), told

    def test_batches_of_a_step_add_up(self, run: Run, training: Any, tmp_path: Path) -> None:
        """Two batches that make one step have the loss of one batch of both."""
        whole = len(run.job.data)
        half = training(tmp_path / "half", max_steps=1, batch_size=-(-whole // 2), gradient_accumulation_steps=2)
        told = f"loss {half.losses} in two batches, and {run.losses[:1]} in one"
        assert half.losses == pytest.approx(run.losses[:1], rel=self.tolerance, abs=self.tolerance), told

    def test_validation_is_measured(self, training: Any, tmp_path: Path) -> None:
        """Validation data are measured and give finite losses."""
        run = training(tmp_path / "measured", max_steps=2, eval_steps=1)
        assert "loss" in run.report.validation, "there is no loss of the validation data"
        values = [point.value for point in run.report.validation["loss"]]
        assert values, "the curve of the validation data is empty"
        assert all(map(math.isfinite, values)), f"validation losses {values}"

    def test_frozen_weights_stay(self, training: Any, tmp_path: Path) -> None:
        """Weights that the tuner froze are the same bits after training."""
        run = training(tmp_path / "frozen", max_steps=2, tuner=_freezing_tuner())
        changed = [name for name in differing(run.before, run.after) if _FROZEN in name or "lm_head" in name]
        assert not changed, f"frozen weights changed: {', '.join(changed)}"

    def test_adapters_can_be_trained(self, run: Run, training: Any, catalogue: Catalogue, tmp_path: Path) -> None:
        """With LoRA only the adapter trains."""
        tuners = catalogue.of(TunerSpec)
        if "lora" not in tuners:
            pytest.skip("no tuner 'lora' is installed")
        options = tuners.find("lora").spec.options
        tuner = tuners.load("lora")(options() if options else None)
        found = training(tmp_path / "lora", max_steps=2, tuner=tuner)
        assert all(map(math.isfinite, found.losses)), f"losses {found.losses} with LoRA"
        # A new head trains whole, and is kept with the adapter.
        own = ("lora", "modules_to_save")
        changed = [name for name in differing(found.before, found.after) if not any(part in name for part in own)]
        assert not changed, f"with LoRA other weights changed: {', '.join(changed)}"

    def test_model_and_tokenizer_are_left(self, run: Run) -> None:
        """Behind training, model and tokenizer are what they were but for the weights."""
        model = run.job.model
        assert model.tokenizer.fingerprint == run.tokenizer, "the tokenizer is another behind training"
        trains = {name: p.requires_grad for name, p in model.network.named_parameters()}
        assert trains == run.trains, "parameters were renamed, frozen or thawed"
        network = model.network
        hooks = [name for name, part in network.named_modules() if part._forward_hooks or part._forward_pre_hooks]
        assert not hooks, f"hooks are left on {', '.join(hooks) or 'the network'}"

    def test_examples_of_other_kinds_are_refused(
        self, spec: ObjectiveSpec, values: Mapping[str, object], catalogue: Catalogue, tiny_model: Path, tmp_path: Path
    ) -> None:
        """Rows of a kind that it does not learn from are refused by the command line, with the file."""
        forms = [(form.spec.example, reader()) for form, reader in loaded(catalogue, "dataset") if form.spec.example]
        rows = [json.loads(row) for row, reader in forms if reader.read(json.loads(row)).kind not in spec.examples]
        if not rows:
            pytest.skip("no form of rows of another kind is installed: lmflow-datasets has some")
        file = tmp_path / "other.json"
        file.write_text(json.dumps(rows[:1]), encoding="utf-8")
        status, told = self._refusal(spec, values, tiny_model, file, tmp_path / "out")
        assert status == 2, f"{rows[0]} is taken for an example of {', '.join(spec.examples)}: status {status}"
        assert "Traceback" not in told, f"refused with a traceback: {told}"
        assert file.name in told or "--" in told, f"{rows[0]} is refused without the file: {told}"

    @staticmethod
    def _refusal(
        spec: ObjectiveSpec, values: Mapping[str, object], model: Path, file: Path, output: Path
    ) -> tuple[int, str]:
        import contextlib
        import io

        from lmflow_core.cli.main import run

        flags = [text for name, value in values.items() for text in (f"--{name.replace('_', '-')}", str(value))]
        fixed = ["--model", str(model), "--dataset", str(file), "--output", str(output), "--device", "cpu"]
        written = io.StringIO()
        with contextlib.redirect_stderr(written), contextlib.redirect_stdout(written):
            status = run(["finetune", "--objective", spec.name, *fixed, *flags])
        return status, written.getvalue()


def _freezing_tuner() -> Any:
    """Return a tuner that trains all but the embeddings, which the head shares."""
    import importlib

    runtime: Any = importlib.import_module("lmflow_transformers.api")

    class Freezing(runtime.FullTuner):  # type: ignore[misc]
        def prepare(self, model: Any, seed: int) -> None:
            super().prepare(model, seed)
            for name, parameter in model.network.named_parameters():
                if _FROZEN in name or "lm_head" in name:
                    parameter.requires_grad_(False)

    return Freezing()
