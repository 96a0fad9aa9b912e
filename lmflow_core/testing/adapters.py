"""An adapter that changes what a model says, made without training."""

from __future__ import annotations

from pathlib import Path

from lmflow_core.contracts.settings import ModelSettings
from lmflow_core.contracts.tuner import Destination, Tuner, TunerSpec
from lmflow_core.models.opening import open_model
from lmflow_core.plugins.registry import Catalogue


def make_adapter(model: Path, folder: Path, catalogue: Catalogue, tuner: str = "lora") -> Path | None:
    """Write an adapter of a model into a new folder and return it; None where there is no such tuner.

    Args:
        model: folder of the model.
        folder: of the adapter.
        catalogue: the plugins there are.
        tuner: the name of one that trains an adapter.
    """
    if tuner not in catalogue.of(TunerSpec):
        return None
    import torch

    opened = open_model(ModelSettings(model=str(model), device="cpu"), catalogue).model
    maker: Tuner = catalogue.of(TunerSpec).load(tuner)(None)
    opened.accept(maker.plan(opened.plan))
    maker.check(opened)
    opened.load()
    maker.prepare(opened, 0)
    source = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for group in maker.parameter_groups(opened):
            for parameter in group.parameters.values():
                parameter.add_(torch.randn(parameter.shape, generator=source), alpha=0.05)
    folder.mkdir()
    maker.save(opened, Destination(folder))
    return folder
