"""Objectives: what is learned, the job that learns it, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar, get_args

from lmflow_core.contracts.engine import Engine, World
from lmflow_core.contracts.examples import Example
from lmflow_core.contracts.generation import GeneratedAnswer
from lmflow_core.contracts.model import PREDICTING, LanguageModel, LoadPlan, ModelServices
from lmflow_core.contracts.optimizer import Optimizer
from lmflow_core.contracts.recipe import Recipe
from lmflow_core.contracts.reward import AnsweredPrompt
from lmflow_core.contracts.settings import TrainingSettings
from lmflow_core.contracts.spec import Selector, Spec
from lmflow_core.contracts.template import Template
from lmflow_core.contracts.tokens import EncodedDataset, EncodedExample
from lmflow_core.contracts.tuner import Tuner
from lmflow_core.errors import SpecError

Model = TypeVar("Model", bound=LanguageModel)
EXAMPLE_KINDS = tuple(example.kind for example in get_args(Example))


class JobServices(ModelServices, Protocol):
    """What the core does for an objective while it trains.

    Attributes:
        template: the conversation template of the run, bound to the tokenizer; None where the data needs none.
    """

    template: Template | None

    def encode(self, examples: Sequence[Example]) -> list[EncodedExample]:
        """Encode examples as those of the data are, without a length policy.

        Raises:
            ValueError: an example does not fit the template.
        """

    def generate(
        self,
        model: LanguageModel,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        seeds: Sequence[int],
        decoder: str = "sampling",
        options: Mapping[str, object] | None = None,
    ) -> list[GeneratedAnswer]:
        """Return an answer to each prompt, which does not depend on the others.

        Args:
            model: loaded; it answers with the weights it has now.
            prompts: token ids.
            max_new_tokens: longest answer.
            seeds: one for each prompt.
            decoder: the name that ``--decoder`` would take.
            options: values for options of the decoder, by name.

        Raises:
            LmflowError: there is no such decoder or option, or it cannot drive the model.
        """

    def score(self, answers: Sequence[AnsweredPrompt]) -> list[float]:
        """Return the reward of each answer, by what ``--reward`` chose; NaN for one that cannot be scored.

        Of several rewards it is the sum, each times its weight.
        """

    def all_gather(self, value: object) -> list[Any]:
        """Return what every process of the job passed, in the order of their ranks; all of them call this."""


@dataclass(frozen=True)
class TrainingSetup(Generic[Model]):
    """What is known of a training run before its data and weights are read: enough to refuse it.

    Attributes:
        model: open, its load plan complete; its weights come later.
        tuner: decides what trains, and keeps it.
        engine: spreads the job over processes.
        optimizer: updates what trains.
        settings: of the run; ``lr`` is the user's or, without one, the tuner's.
        services: what the core does for the objective.
    """

    model: Model
    tuner: Tuner
    engine: Engine
    optimizer: Optimizer
    settings: TrainingSettings
    services: JobServices


@dataclass(frozen=True)
class TrainingJob(TrainingSetup[Model]):
    """Everything an objective needs to train.

    Attributes:
        world: the processes of the job.
        data: what is trained on.
        validation: what the loss is measured on besides, if anything.
        attention: the attention implementation for packed sequences, as the runtime knows it.
        checkpoints: a folder the trainer may write into.
        resume: go on from the newest whole checkpoint there.
        resume_anyway: go on even where the checkpoint's recipe differs.
        recipe: what the result depends on; the trainer keeps it with each checkpoint.
    """

    world: World
    data: EncodedDataset
    validation: EncodedDataset | None
    attention: str
    checkpoints: Path
    resume: bool = False
    resume_anyway: bool = False
    recipe: Recipe = field(default_factory=Recipe)


@dataclass(frozen=True)
class MetricPoint:
    """The value of a metric, such as the loss, over the steps since the point before."""

    step: int
    value: float


Curves = Mapping[str, tuple[MetricPoint, ...]]


@dataclass(frozen=True)
class TrainingReport:
    """What a training run did.

    Attributes:
        steps: optimizer steps.
        tokens: real tokens, over all processes.
        seconds: of training.
        peak_memory_bytes: the most memory held.
        unit: what the loss is the mean over: ``tokens``, ``pairs``, ….
        training: the curves of what was trained on by the metric's name; ``loss`` is always there.
        validation: the same for the validation data, if any.
        metrics: figures of the run as a whole.
    """

    steps: int
    tokens: int
    seconds: float
    peak_memory_bytes: int
    unit: str
    training: Curves
    validation: Curves = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def tokens_per_second(self) -> float:
        """Real tokens trained per second of training."""
        return self.tokens / self.seconds if self.seconds else 0.0


class Objective(Protocol):
    """Target of an ``ObjectiveSpec``: what is learned."""

    def plan(self, plan: LoadPlan) -> LoadPlan:
        """Return a load plan with what the objective needs of the weights, mostly the one given."""

    def check(self, setup: TrainingSetup[Any]) -> None:
        """Check a run before its data and weights are read; the model's plan is complete.

        Raises:
            LmflowError: what was chosen does not go together; the message names what would.
        """

    def train(self, job: TrainingJob[Any]) -> TrainingReport:
        """Train the job's model in place.

        Raises:
            LmflowError: training failed; the message names what can be done.
        """


@dataclass(frozen=True, kw_only=True)
class ObjectiveSpec(Spec):
    """A loss; ``target(options)`` satisfies ``Objective``.

    ``examples`` are the kinds of example it learns from, at least one of ``text``, ``prompted``, ``conversation``,
    ``prompt``, ``preference``, ``judged``, ``candidates``, ``value``, ``image_text``. Where prompts are learned from
    and conversations are not, the prompt of a conversation is taken. ``scores`` says that answers are scored as it
    trains, by the rewards that ``--reward`` names. ``tasks`` are those of a load plan whose networks it trains; one
    that trains another than the model's own asks for it in ``plan``.

    Example::

        @hookimpl
        def lmflow_register_objectives():
            yield ObjectiveSpec(
                name="pairwise",
                target="lmflow_pairs.objective:Pairwise",
                summary="Prefer one answer.",
                examples=("preference",),
            )
    """

    kind: ClassVar[str] = "objective"
    contract: ClassVar[type | None] = Objective
    selector: ClassVar[Selector | None] = Selector("objective", "What is learned.", {"finetune": "sft"})
    examples: tuple[str, ...]
    scores: bool = False
    tasks: tuple[str, ...] = PREDICTING

    def __post_init__(self) -> None:
        super().__post_init__()
        unknown = [kind for kind in self.examples if kind not in EXAMPLE_KINDS]
        if unknown or not self.examples:
            known = ", ".join(EXAMPLE_KINDS)
            raise SpecError(f"examples of {self.name!r} must be some of {known}, not {self.examples!r}")
