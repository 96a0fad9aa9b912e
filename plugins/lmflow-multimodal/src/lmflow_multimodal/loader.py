"""Opens models that see."""

from __future__ import annotations

from pathlib import Path

from lmflow_core.api import ModelSettings, ModelSketch
from lmflow_multimodal.models import ImageTextModel
from lmflow_transformers.api import check_folder, sketch


class ImageTextLoader:
    """Opens folders of image-text models."""

    def sketch(self, reference: str, settings: ModelSettings) -> ModelSketch:
        """Read the configuration of a folder or a JSON file; memory is planned from it.

        Raises:
            ModelError: there is none, or transformers does not know its architecture.
        """
        from lmflow_multimodal.planning import SketchedImageTextModel

        return sketch(reference, settings, SketchedImageTextModel)

    def open(self, reference: str, settings: ModelSettings) -> ImageTextModel:
        """Open a folder.

        Raises:
            ModelError: the folder lacks a configuration or weights, or transformers cannot open it.
        """
        path = Path(reference).expanduser()
        check_folder(path)
        arguments = {"trust_remote_code": settings.trust_remote_code, "local_files_only": True}
        return ImageTextModel(reference, str(path), arguments, settings)
