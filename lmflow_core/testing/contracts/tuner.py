"""The contract of tuners: what trains, what stays, and that the result is what was trained."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from lmflow_core.contracts.objective import ObjectiveSpec, TrainingJob, TrainingReport
from lmflow_core.contracts.settings import ModelSettings, TrainingSettings
from lmflow_core.contracts.tokens import EncodedSequence
from lmflow_core.contracts.tuner import Destination
from lmflow_core.errors import LmflowError
from lmflow_core.models.opening import open_model
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.testing.contracts.base import ComponentContract
from lmflow_core.testing.tensors import differing, state_of

_STEPS, _CHECKPOINT = 6, 3
_EXAMPLES = [list(range(start, start + 12)) for start in (3, 40, 90, 200)]
_SEQUENCES = [EncodedSequence(ids, ids) for ids in _EXAMPLES]
_PICKLED = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")


@dataclass(frozen=True)
class Trained:
    """A run of a tuner: its job, what it gave, the weights before and after, and the names of those that may train."""

    job: TrainingJob[Any]
    report: TrainingReport
    before: Mapping[str, Any]
    after: Mapping[str, Any]
    groups: frozenset[str]
    checkpoints: Path

    def opened(self, reference: Path) -> Any:
        """Return a model, loaded, whose weights are quantised as those were that the tuner trained."""
        opened = open_model(ModelSettings(model=str(reference), device="cpu"), Catalogue.discover())
        model: Any = opened.model
        model.accept(replace(model.plan, quantization=self.job.model.plan.quantization))
        return opened.load()


class TunerContract(ComponentContract):
    """What a tuner must do, tried on a small model that it trains for a few steps.

    Attributes:
        learning_rate: with which the loss of a random model falls within six steps.
    """

    kind: ClassVar[str] = "tuner"
    learning_rate: ClassVar[float] = 1e-2

    @pytest.fixture(scope="class")
    @classmethod
    def trained(
        cls, target: Any, option_values: Any, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
    ) -> Trained:
        """Return a run on a small model."""
        return cls._train(cls.made(target, option_values), tiny_model, tmp_path_factory.mktemp("run") / "checkpoints")

    @classmethod
    def _train(cls, tuner: Any, model: Path, checkpoints: Path) -> Trained:
        from lmflow_core.testing.jobs import make_job, single

        settings = TrainingSettings(
            lr=cls.learning_rate,
            lr_scheduler_type="linear",
            warmup_ratio=0,
            batch_size=len(_EXAMPLES),
            epochs=_STEPS,
            logging_steps=1,
            save_steps=_CHECKPOINT,
            save_total_limit=_STEPS,
        )
        job = make_job(model, checkpoints, settings, [single(ids) for ids in _EXAMPLES], tuner=tuner)
        before = state_of(job.model.network)
        listed = {id(p) for group in tuner.parameter_groups(job.model) for p in group.parameters.values()}
        named = job.model.network.named_parameters(remove_duplicate=False)
        groups = frozenset(name for name, parameter in named if id(parameter) in listed)
        report = Catalogue.discover().of(ObjectiveSpec).load("sft")(None).train(job)
        return Trained(job, report, before, state_of(job.model.network), groups, checkpoints)

    def test_groups_hold_parameters_of_the_network(self, trained: Trained) -> None:
        """What may train are parameters of the network, each in one group."""
        groups = trained.job.tuner.parameter_groups(trained.job.model)
        network = dict(trained.job.model.network.named_parameters(remove_duplicate=False))
        listed = [id(parameter) for group in groups for parameter in group.parameters.values()]
        assert listed, "no parameter may train"
        assert len(set(listed)) == len(listed), "a parameter is in two groups"
        foreign = [name for group in groups for name, p in group.parameters.items() if network.get(name) is not p]
        assert not foreign, f"no parameters of the network by these names: {', '.join(foreign)}"
        open_ = [name for name, p in network.items() if p.requires_grad and id(p) not in listed]
        assert not open_, f"these have gradients and are in no group: {', '.join(open_)}"

    def test_frozen_weights_stay(self, trained: Trained) -> None:
        """Weights that are in no group are the same bits after training."""
        changed = [name for name in differing(trained.before, trained.after) if name not in trained.groups]
        assert not changed, f"frozen weights changed: {', '.join(changed)}"

    def test_what_may_train_trains(self, trained: Trained) -> None:
        """Weights that may train change; all of them, unless the tuner freezes some in a run."""
        changed = set(differing(trained.before, trained.after))
        assert changed, "no weight changed"
        if not trained.job.tuner.freezes_while_training:
            idle = sorted(trained.groups - changed)
            assert not idle, f"these may train and did not change: {', '.join(idle)}"

    def test_the_loss_falls(self, trained: Trained) -> None:
        """The loss falls on rows that are seen again and again."""
        losses = [point.value for point in trained.report.training["loss"]]
        assert losses[-1] < losses[0], f"the loss of {len(losses)} steps went from {losses[0]} to {losses[-1]}"

    def test_a_seed_repeats_a_run(self, trained: Trained, component: Any, tiny_model: Path, tmp_path: Path) -> None:
        """The same seed gives the same weights, before training and after."""
        again = self._train(component, tiny_model, tmp_path / "checkpoints")
        assert not differing(trained.before, again.before), "fresh weights depend on more than the seed"
        assert not differing(trained.after, again.after), "trained weights depend on more than the seed"

    def test_a_resumed_run_is_the_uninterrupted_one(
        self, trained: Trained, component: Any, tiny_model: Path, tmp_path: Path
    ) -> None:
        """A run that goes on from a checkpoint ends with the bits of one that was not interrupted."""
        begun = shutil.copytree(trained.checkpoints, tmp_path / "checkpoints")
        for later in range(_CHECKPOINT + 1, _STEPS + 1):
            shutil.rmtree(begun / f"checkpoint-{later}", ignore_errors=True)
        resumed = self._train(component, tiny_model, begun)
        assert resumed.report.training == trained.report.training, "the losses differ from those of one run"
        others = differing(trained.after, resumed.after)
        assert not others, f"other weights than those of one run: {', '.join(others)}"

    @pytest.fixture(scope="class")
    @classmethod
    def saved(cls, trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """Return the folder of the result."""
        folder = tmp_path_factory.mktemp("saved")
        trained.job.tuner.save(trained.job.model, Destination(folder))
        return folder

    def test_the_result_opens_as_it_was_trained(self, trained: Trained, saved: Path, spec: Any) -> None:
        """The saved result, opened by its folder, gives the likelihoods of the trained model, quantised as that was."""
        is_adapter = spec.adapter_file is not None
        assert not is_adapter or (saved / spec.adapter_file).is_file(), f"it did not write {spec.adapter_file}"
        wanted = [score.nll for score in trained.job.model.score(_SEQUENCES)]
        found = [score.nll for score in trained.opened(saved).score(_SEQUENCES)]
        assert found == pytest.approx(wanted, rel=1e-4), f"likelihoods {found}, and {wanted} when it was trained"

    def test_plain_transformers_loads_the_result(
        self, trained: Trained, saved: Path, spec: Any, tiny_model: Path, tmp_path: Path
    ) -> None:
        """Plain transformers loads the result, an adapter merged into its base, and gives the same likelihoods.

        An adapter that was trained beside quantised weights is merged into the unquantised base, and must give what it
        gives there.
        """
        from lmflow_core.cli.main import run
        from lmflow_core.testing.tensors import plain_nll

        folder = saved
        if spec.adapter_file is not None:
            folder = tmp_path / "merged"
            command = ["merge", "--model", str(tiny_model), "--adapter", str(saved), "--output", str(folder)]
            assert run(command) == 0, "lmflow merge failed"
        model = trained.job.model
        if model.plan.quantization is not None:
            model = open_model(ModelSettings(model=str(saved), device="cpu"), Catalogue.discover()).load()
        wanted = [score.nll for score in model.score(_SEQUENCES)]
        found = plain_nll(folder, _EXAMPLES)
        assert found == pytest.approx(wanted, rel=1e-3), f"likelihoods {found}, and {wanted} when it was trained"

    def test_only_the_main_process_writes(self, trained: Trained, tmp_path: Path) -> None:
        """A process that is not the main one takes part in saving and writes nothing."""
        trained.job.tuner.save(trained.job.model, Destination(tmp_path, is_main=False))
        assert not list(tmp_path.iterdir()), "it wrote in a process that is not the main one"

    def test_the_result_holds_no_pickle(self, saved: Path) -> None:
        """Weights are written as safetensors, and nothing is pickled."""
        pickled = [path.name for path in saved.rglob("*") if path.suffix in _PICKLED]
        assert not pickled, f"pickled: {', '.join(pickled)}"

    def test_the_reference_is_the_model_before_training(self, trained: Trained, tiny_model: Path) -> None:
        """Where it gives a reference, that is the model from before training, and the trained one comes back."""
        model = trained.job.model
        context = trained.job.tuner.reference(model)
        if context is None:
            return
        started = trained.opened(tiny_model)
        wanted = [[score.nll for score in each.score(_SEQUENCES)] for each in (started, model)]
        with context:
            inside = [score.nll for score in model.score(_SEQUENCES)]
        behind = [score.nll for score in model.score(_SEQUENCES)]
        assert inside == pytest.approx(wanted[0], rel=1e-4), "the reference is not the model before training"
        assert behind == pytest.approx(wanted[1], rel=1e-4), "behind the reference, the model is not the trained one"

    def test_a_folder_without_its_adapter_is_refused(self, component: Any, tiny_model: Path, tmp_path: Path) -> None:
        """A folder that holds no adapter of it is refused with an error that says so."""
        model = open_model(ModelSettings(model=str(tiny_model), device="cpu"), Catalogue.discover()).load()
        with pytest.raises(LmflowError):
            component.attach(model, tmp_path)
        with suppress(LmflowError):
            assert component.base_reference(tmp_path) is None, "it names the base of an adapter that is not there"
