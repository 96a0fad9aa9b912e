"""What each command takes: settings, and the options that choose a component, which follow from the spec classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, make_dataclass, replace
from typing import Any

from lmflow_core.contracts.answering import AnsweringSettings
from lmflow_core.contracts.hooks import KINDS, SPEC_CLASSES
from lmflow_core.contracts.settings import (
    ComparisonSettings,
    DataSettings,
    DecodingSettings,
    EvaluationDataSettings,
    EvaluationSettings,
    ImageSettings,
    ModelSettings,
    OutputSettings,
    PlannedDataSettings,
    PlannedOutputSettings,
    PlanSettings,
    PromptSettings,
    ResumeSettings,
    ScoreSettings,
    TrainingSettings,
)
from lmflow_core.contracts.spec import Selector
from lmflow_core.options import fields_of, option


@dataclass(frozen=True)
class Schema:
    """What a command takes.

    Attributes:
        name: of the command.
        settings: options classes whose fields every call has.
        selectors: for each option that chooses a component, the kind of component.
        instead: by option, the schema that takes the place of this one where it is given.
    """

    name: str
    settings: tuple[type, ...]
    selectors: Mapping[str, str] = field(default_factory=dict)
    instead: Mapping[str, Schema] = field(default_factory=dict)

    def takes_several(self, selector: str) -> bool:
        """Whether an option chooses any number of components, each with a weight."""
        chosen = KINDS[self.selectors[selector]].selector
        return chosen is not None and chosen.weighted


def _schema(command: str, *settings: type) -> Schema:
    """Return the schema of a command; what it lets choose is what the selectors of the spec classes say."""
    chosen = {
        spec_class.kind: spec_class.selector
        for spec_class in SPEC_CLASSES
        if spec_class.selector is not None and command in spec_class.selector.defaults
    }
    known = {each.name for one in settings for each in fields_of(one)}
    missing = [selector for selector in chosen.values() if selector.name not in known]
    selectors = {selector.name: kind for kind, selector in chosen.items()}
    return Schema(command, (*settings, _choices(command, missing)), selectors)


def _choices(command: str, selectors: list[Selector]) -> type:
    """Return an options class with a field for each selector, for those that no settings class describes."""
    fields: list[Any] = []
    for selector in selectors:
        default = selector.defaults[command]
        kind = str if default is not None else str | None
        if selector.weighted:
            fields.append((selector.name, tuple[str, ...], option((), help=selector.help)))
        else:
            fields.append((selector.name, kind, option(default, help=selector.help)))
    return make_dataclass(f"{command.title().replace(' ', '')}Choices", fields, frozen=True, kw_only=True)


FINETUNE = _schema("finetune", ModelSettings, DataSettings, OutputSettings, TrainingSettings, ResumeSettings)
PLAN = replace(
    _schema(
        "finetune",
        PlanSettings,
        ModelSettings,
        PlannedDataSettings,
        PlannedOutputSettings,
        TrainingSettings,
        ResumeSettings,
    ),
    name="doctor --plan",
)
EVALUATE_ANSWERS = _schema("evaluate --reward", ModelSettings, AnsweringSettings, DecodingSettings)
EVALUATE_RUNS = Schema("evaluate --compare", (ComparisonSettings,))
EVALUATE = replace(
    _schema("evaluate", ModelSettings, EvaluationDataSettings, EvaluationSettings),
    instead={"reward": EVALUATE_ANSWERS, "compare": EVALUATE_RUNS},
)
EXPORT = _schema("export", ModelSettings, OutputSettings)
SCORE = _schema("data score", ScoreSettings)
GENERATE = _schema("generate", ModelSettings, PromptSettings, DecodingSettings)
CHAT = _schema("chat", ModelSettings, DecodingSettings, ImageSettings)
# Of commands by which others talk with a model.
SERVED = _schema("chat", ModelSettings, DecodingSettings)
# An adapter's run file tells how the positions of its model were scaled.
ADAPTER_RUN = Schema("the adapter's run", (ModelSettings,), {"position_scaling": "position_scaling"})
