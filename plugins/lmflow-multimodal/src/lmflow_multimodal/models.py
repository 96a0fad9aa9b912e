"""A language model of transformers that sees images."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from lmflow_core.api import LoadPlan, ModelSettings, RequestError
from lmflow_multimodal.collating import ProcessorInputs
from lmflow_multimodal.media import ProcessorMediaTokenizer
from lmflow_multimodal.pictures import PictureLimits
from lmflow_multimodal.processor import FILES, open_processor
from lmflow_transformers.api import CausalModel

TASK = "image-text"
PARTS = ("projector", "language", "vision")
_DEFAULT_PARTS = ("projector", "language")
# Within the eyes of the Qwen-VL models, what leads to the language model.
_MERGERS = ("merger.", "deepstack_merger_list.")
# What tells the text where packed sequences lie; of images a model's eyes know themselves where each ends.
_OF_PACKING = ("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k", "shared_beginnings")


class ImageTextModel(CausalModel):
    """A language model that sees. ``processor`` is that of transformers."""

    parts = PARTS
    # As in LLaVA (arXiv:2310.03744): a projector is small and perhaps new; beside drawn weights adapters learn little.
    whole_parts = ("projector",)
    unquantised = ("lm_head", "multi_modal_projector", "connector", "merger", "deepstack_merger_list")

    def __init__(self, reference: str, source: str, arguments: dict[str, Any], settings: ModelSettings) -> None:
        super().__init__(reference, source, arguments, settings)
        limits = PictureLimits(fetch=settings.fetch_images)
        self.processor = open_processor(Path(source), self.config, self.tokenizer.inner)
        self.media = ProcessorMediaTokenizer(self.processor, self.config, limits)
        self._inputs = ProcessorInputs(self.processor, self.config, limits)
        self.media_inputs = self._inputs
        self.media_ids = frozenset(self.processor.image_token_ids)

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
        return _names(self.base, _eyes(self.base))

    @cached_property
    def _of_text(self) -> list[str]:
        return _names(self.base, [self.base.get_decoder(), self.base.get_output_embeddings()])

    def load(self) -> None:
        """Load the weights, as the plan says."""
        loaded = self._network is not None
        super().load()
        if not loaded:
            for eyes in _eyes(self.network):
                eyes.register_forward_pre_hook(_without_packing, with_kwargs=True)
        self._inputs.fit(self.network)

    def save_tokenizer(self, folder: Path, chat_template: str | None) -> None:
        """Write the tokenizer, with the chat template that was used, and the processor's own files."""
        super().save_tokenizer(folder, chat_template)
        for name in FILES:
            if (Path(self.source) / name).is_file():
                shutil.copyfile(Path(self.source) / name, folder / name)


def _eyes(network: Any) -> list[Any]:
    """Return the modules of a network that see: those whose configuration is that of the images, outermost first."""
    vision = network.config.vision_config
    return [module for module in network.modules() if getattr(module, "config", None) is vision]


def _within(name: str, module: str) -> bool:
    return name == module or name.startswith(f"{module}.")


def _names(network: Any, modules: Sequence[Any]) -> list[str]:
    return [name for name, module in network.named_modules() if any(module is each for each in modules)]


def _without_packing(module: Any, arguments: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    return arguments, {name: value for name, value in options.items() if name not in _OF_PACKING}
