"""The memory of training a model that sees, planned from its configuration."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from lmflow_core.api import MemoryPlan, PlannedRun, RequestError
from lmflow_multimodal.parts import ModelOfParts
from lmflow_transformers.api import SketchedModel

_ASSUMED = "an image counts as the tokens that stand for it: its pixels, and what its way to them takes, are left out"


class SketchedImageTextModel(ModelOfParts, SketchedModel):
    """A model that sees of which the configuration alone is read."""

    def load(self) -> None:
        """Build the network; where the projector trains, the gradient goes back to the embeddings, as it does there."""
        super().load()
        if "projector" in self.plan.parts:
            self.network.get_input_embeddings().register_forward_hook(_with_gradient)

    def memory(self, run: PlannedRun, *, lean: bool = True) -> MemoryPlan:
        """Return what a run takes, images left out.

        Raises:
            RequestError: the vision tower is to train, and keeps for backward what depends on the images.
            LmflowError: as a sketched model does.
        """
        if "vision" in run.placement.plan.parts:
            raise RequestError(
                "--train-parts vision: a tower that trains keeps more, the more and larger images there are, which is "
                "not planned: leave vision out of the parts"
            )
        plan = super().memory(run, lean=lean)
        return replace(plan, assumptions=(*plan.assumptions, _ASSUMED))


def _with_gradient(module: Any, inputs: Any, embedded: torch.Tensor) -> None:
    embedded.requires_grad_()
