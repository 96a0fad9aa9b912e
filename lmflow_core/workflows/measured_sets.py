"""The data sets that a benchmark measures one by one, and the windows in which long examples are scored."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from lmflow_core.contracts.benchmark import MeasuredSet
from lmflow_core.contracts.model import LanguageModel
from lmflow_core.contracts.settings import DataSettings, EvaluationSettings
from lmflow_core.contracts.tokens import EncodedSequence
from lmflow_core.data.dataset import DatasetMaker
from lmflow_core.errors import DataError, OptionError
from lmflow_core.models.opening import OpenModel
from lmflow_core.plugins.registry import Catalogue
from lmflow_core.report import console
from lmflow_core.workflows.windows import windows

Windows = Callable[[Iterable[EncodedSequence]], Iterable[EncodedSequence]]


def chosen_windows(settings: EvaluationSettings, model: LanguageModel) -> Windows | None:
    """Return what cuts documents into the windows that are asked for; None where none are.

    Raises:
        OptionError: the windows do not overlap, or nothing tells how long they are.
    """
    if settings.context is None and settings.stride is None:
        return None
    context = settings.context or model.context_length
    if context is None:
        raise OptionError(f"--stride needs --context, the length of the window: {model.reference} tells none")
    if model.context_length is not None and context > model.context_length:
        console.note(f"--context {context}: the model was made for {model.context_length} tokens")
    stride = settings.stride or max(1, context // 2)
    if stride >= context:
        raise OptionError(f"--stride {stride} must be smaller than the model's context of {context} tokens")
    return lambda documents: windows(documents, context, stride)


def measured_sets(
    sets: Mapping[str, Path],
    data: DataSettings,
    accepted: tuple[str, ...],
    cut: Windows | None,
    opened: OpenModel,
    catalogue: Catalogue,
) -> dict[str, MeasuredSet]:
    """Return each data set, encoded for a model.

    Args:
        sets: where they are, by name.
        data: how their rows become tokens.
        accepted: the kinds of example that are measured.
        cut: what cuts examples into windows; None scores them as they are, so that they must fit the context.
        opened: the model; its weights are not needed.
        catalogue: the components there are.

    Raises:
        OptionError: weights are given, which would change how often an example counts.
        DataError: a set cannot be read, or holds nothing to measure on.
    """
    if data.dataset_weights:
        raise OptionError("--dataset-weights: each data set is measured by itself, so leave it out")
    made = {}
    for name, path in sets.items():
        own = dataclasses.replace(data, dataset=(path,))
        maker = DatasetMaker(own, opened, catalogue, accepted=accepted, purpose="measure", whole=cut is not None)
        try:
            rows = maker.make().rows
        except DataError as error:
            if error.file is not None:
                raise
            raise DataError(str(error), file=path) from error
        made[name] = MeasuredSet(rows, lambda sequence: [sequence] if cut is None else cut([sequence]))
    return made
