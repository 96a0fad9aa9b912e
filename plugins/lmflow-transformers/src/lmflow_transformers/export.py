"""Export to a folder that plain transformers loads."""

from __future__ import annotations

from pathlib import Path

from lmflow_core.api import ExportReport, ModelError, printable
from lmflow_transformers.models import CausalModel


class HuggingFaceExporter:
    """Writes safetensors, configuration and tokenizer, with any adapter merged."""

    def __init__(self, options: None = None) -> None:
        """Take no options."""

    def export(self, model: CausalModel, folder: Path, chat_template: str | None) -> ExportReport:
        """Merge the adapter, if there is one, and write the model.

        Raises:
            ModelError: the adapter makes weights that are no numbers.
        """
        merge = getattr(model.network, "merge_and_unload", None)
        if merge is not None:
            try:
                model.network = merge(safe_merge=True)
            except ValueError as error:
                reason = printable(" ".join(str(error).split()), 300)
                raise ModelError(f"the adapter in {model.adapter} cannot be merged: {reason}") from error
        model.save(folder, chat_template)
        return ExportReport({file.name: file.stat().st_size for file in sorted(folder.iterdir())})
