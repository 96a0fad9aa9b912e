"""What a model that sees is made of: what leads from images to text, the language model, and the vision tower."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from lmflow_core.api import LoadPlan, RequestError
from lmflow_transformers.api import CausalModel

TASK = "image-text"
PARTS = ("projector", "language", "vision")
_DEFAULT_PARTS = ("projector", "language")
# Within the eyes of the Qwen-VL models, what leads to the language model.
_MERGERS = ("merger.", "deepstack_merger_list.")


class ModelOfParts(CausalModel):
    """A language model that sees, whose parts can train apart."""

    parts = PARTS
    # As in LLaVA (arXiv:2310.03744): a projector is small and perhaps new; beside drawn weights adapters learn little.
    whole_parts = ("projector",)
    unquantised = ("lm_head", "multi_modal_projector", "connector", "merger", "deepstack_merger_list")

    def accept(self, plan: LoadPlan) -> None:
        """Take the plan by which :meth:`load` will build the network.

        Raises:
            RequestError: as a causal model does; the network is to give a number; or a part is none of the model's.
        """
        if plan.task not in ("causal", TASK):
            raise RequestError(f"{self.reference} sees images, and is not loaded for the task {plan.task!r}")
        if wrong := [part for part in plan.parts if part not in PARTS]:
            raise RequestError(f"--train-parts {','.join(wrong)}: a model that sees has {', '.join(PARTS)}")
        super().accept(replace(plan, task=TASK, parts=plan.parts or _DEFAULT_PARTS))

    def part_of(self, name: str) -> str:
        """Return which part a module or parameter belongs to: what is neither text nor eyes leads from one to other."""
        for eye in self._of_eyes:
            if _within(name, eye):
                return "projector" if f"{name}.".removeprefix(f"{eye}.").startswith(_MERGERS) else "vision"
        return "language" if any(_within(name, each) for each in self._of_text) else "projector"

    @cached_property
    def _of_eyes(self) -> list[str]:
        return _names(self.base, eyes_of(self.base))

    @cached_property
    def _of_text(self) -> list[str]:
        return _names(self.base, [self.base.get_decoder(), self.base.get_output_embeddings()])


def eyes_of(network: Any) -> list[Any]:
    """Return the modules of a network that see: those whose configuration is that of the images, outermost first."""
    vision = network.config.vision_config
    return [module for module in network.modules() if getattr(module, "config", None) is vision]


def _within(name: str, module: str) -> bool:
    return name == module or name.startswith(f"{module}.")


def _names(network: Any, modules: Sequence[Any]) -> list[str]:
    return [name for name, module in network.named_modules() if any(module is each for each in modules)]
