"""A language model of transformers that sees images."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from lmflow_core.api import ModelSettings
from lmflow_multimodal.collating import ProcessorInputs
from lmflow_multimodal.media import ProcessorMediaTokenizer
from lmflow_multimodal.parts import ModelOfParts, eyes_of
from lmflow_multimodal.pictures import PictureLimits
from lmflow_multimodal.processor import FILES, open_processor, sees_ahead

# What tells the text where sequences lie; of images a model's eyes know themselves where each ends.
_OF_PACKING = ("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k", "shared_beginnings", "lmflow_parts")


class ImageTextModel(ModelOfParts):
    """A language model that sees. ``processor`` is that of transformers."""

    def __init__(self, reference: str, source: str, arguments: dict[str, Any], settings: ModelSettings) -> None:
        super().__init__(reference, source, arguments, settings)
        limits = PictureLimits(fetch=settings.fetch_images)
        self.processor = open_processor(Path(source), self.config, self.tokenizer.inner)
        self.media = ProcessorMediaTokenizer(self.processor, self.config, limits)
        self._inputs = ProcessorInputs(self.processor, self.config, limits)
        self.media_inputs = self._inputs
        self.media_ids = frozenset(self.processor.image_token_ids)
        self.sees_ahead = sees_ahead(self.processor)

    def load(self) -> None:
        """Load the weights, as the plan says."""
        loaded = self._network is not None
        super().load()
        if not loaded:
            for eyes in eyes_of(self.network):
                eyes.register_forward_pre_hook(_without_packing, with_kwargs=True)
        self._inputs.fit(self.network)

    def save_tokenizer(self, folder: Path, chat_template: str | None) -> None:
        """Write the tokenizer, with the chat template that was used, and the processor's own files."""
        super().save_tokenizer(folder, chat_template)
        for name in FILES:
            if (Path(self.source) / name).is_file():
                shutil.copyfile(Path(self.source) / name, folder / name)


def _without_packing(module: Any, arguments: Any, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    return arguments, {name: value for name, value in options.items() if name not in _OF_PACKING}
