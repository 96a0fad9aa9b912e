"""A model of which the configuration alone is read, and its network without numbers."""

from __future__ import annotations

import json
import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from lmflow_core.api import LoadPlan, MemoryPlan, ModelError, ModelSettings, PlannedRun, printable
from lmflow_transformers.attention import attend_with
from lmflow_transformers.devices import planned_devices
from lmflow_transformers.loading import opened
from lmflow_transformers.models import FACTORIES, CausalModel
from lmflow_transformers.planning.quantised import quantise


class SketchedModel(CausalModel):
    """A model whose ``load`` makes a network of tensors that have a shape and a number format, and no memory."""

    def __init__(self, reference: str, config: Any, settings: ModelSettings) -> None:
        """Begin with a configuration; there is no tokenizer."""
        self.reference, self.source = reference, reference
        self.adapter = None
        self.arguments = {"trust_remote_code": settings.trust_remote_code}
        self._own_config = config
        self._settings = settings
        self._network = None
        with planned_devices():
            self.accept(LoadPlan(dtype=settings.dtype, device=settings.device))

    def load(self) -> None:
        """Build the network, as the plan says, in a context that sends tensors to the device ``meta``.

        Raises:
            ModelError: transformers has no network for the configuration.
        """
        factory = FACTORIES[self.plan.task]
        try:
            network = factory.from_config(self.config, dtype=self.dtype, **self.arguments)
        except Exception as error:  # transformers raises many kinds; all mean that there is no such network
            reason = printable(" ".join(str(error).split()) or type(error).__name__, 300)
            raise ModelError(f"{self.reference}: no network can be made of its config.json: {reason}") from error
        if self.plan.quantization is not None:
            network.requires_grad_(False)
            quantise(network, self.plan.quantization, network.get_output_embeddings())
        if self.plan.attention is not None:
            attend_with(network, self.plan.attention)
        self._network = network.train()

    def planning(self) -> AbstractContextManager[None]:
        """Return a context in which devices that are asked for need not exist."""
        return planned_devices()

    def memory(self, run: PlannedRun, *, lean: bool = True) -> MemoryPlan:
        """Return what a run takes; without ``lean`` as if norms and gated layers kept all for backward that they make.

        Raises:
            LmflowError: the tuner cannot train the model, or its attention cannot be had.
        """
        from lmflow_transformers.planning.parts import memory_of

        fresh = type(self)(self.reference, self._own_config, self._settings)
        with planned_devices():
            fresh.accept(run.placement.plan)
            return memory_of(fresh, run, FakeTensorMode(allow_non_fake_inputs=True), lean)


def sketch(reference: str, settings: ModelSettings, kind: type[SketchedModel] = SketchedModel) -> SketchedModel:
    """Read a configuration: of a folder, whose weights need not be there, a JSON or GGUF file, or a hub name.

    Args:
        reference: of the model.
        settings: how it is to be opened.
        kind: of the model that is returned.

    Raises:
        ModelError: there is none, it is damaged, or transformers does not know its architecture.
    """
    return kind(reference, _configuration(reference, settings), settings)


def _configuration(reference: str, settings: ModelSettings) -> Any:
    path = Path(reference).expanduser()
    arguments: dict[str, Any] = {"trust_remote_code": settings.trust_remote_code, "local_files_only": True}
    if path.suffix == ".gguf":
        return opened(AutoConfig, str(path.parent), {**arguments, "gguf_file": path.name}, reference)
    if path.is_dir() or path.suffix == ".json":
        file = path / "config.json" if path.is_dir() else path
        _check_architecture(file)
        return opened(AutoConfig, str(file), arguments, reference)
    arguments["local_files_only"] = os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0")
    if settings.revision:
        arguments["revision"] = settings.revision
    return opened(AutoConfig, reference, arguments, reference)


def _check_architecture(file: Path) -> None:
    """Refuse what is no configuration of a model, in fewer words than transformers.

    Raises:
        ModelError: the file is missing, damaged, or names no architecture that transformers has.
    """
    if not file.is_file():
        raise ModelError(f"{file.parent} has no config.json, from which memory is planned")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{file} cannot be read: {printable(' '.join(str(error).split()), 200)}") from error
    kind = content.get("model_type") if isinstance(content, dict) else None
    if not isinstance(kind, str):
        raise ModelError(f"{file} is no configuration of a transformers model: it has no model_type")
    known = kind in CONFIG_MAPPING or "auto_map" in content
    if not known:
        raise ModelError(f"{file}: this version of transformers has no architecture {printable(repr(kind), 60)}")
