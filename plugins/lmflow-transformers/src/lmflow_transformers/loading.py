"""Files of a transformers model: found, opened by transformers, and written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from lmflow_core.api import ModelError, printable
from lmflow_transformers.writing import refusals_as_os_errors

_WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
_HUB_FILES = [*_WEIGHTS, "*.json", "*.jinja", "*.txt", "tokenizer.model", "README.md"]


def opened(factory: Any, source: str, arguments: Mapping[str, Any], reference: str) -> Any:
    """Return what a factory of transformers makes of a source.

    Raises:
        ModelError: it makes nothing of it; ``reference`` is what the user called it.
    """
    try:
        return factory.from_pretrained(source, **arguments)
    except BaseException as error:  # transformers raises many kinds; all mean that the reference cannot be opened
        if not isinstance(error, Exception) and not _is_panic(error):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ModelError(f"model {reference!r} cannot be opened: {printable(reason, 500)}") from error


@contextmanager
def drawn_by(seed: int) -> Iterator[None]:
    """For the time of the context, draw weights that no file has, such as a new head, by a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _is_panic(error: BaseException) -> bool:
    """Whether a library in Rust gave up; its exception is none of Python's ordinary ones."""
    return type(error).__name__ == "PanicException"


def hub_folder(name: str, arguments: dict[str, Any]) -> Path:
    """Return the folder of a hub model's files, fetching those that are not there.

    Raises:
        ModelError: they cannot be fetched.
    """
    from huggingface_hub import snapshot_download

    try:
        found = snapshot_download(
            name,
            revision=arguments.get("revision"),
            local_files_only=arguments["local_files_only"],
            allow_patterns=_HUB_FILES,
        )
    except Exception as error:  # the hub raises many kinds; all mean that the files are not to be had
        raise ModelError(f"the files of {name!r} cannot be fetched: {' '.join(str(error).split())[:300]}") from error
    return Path(found)


def save_network(network: Any, folder: Path, weights: Mapping[str, Any] | None = None) -> None:
    """Write a transformers model's weights, its own or some that are given, and its configuration.

    Raises:
        OSError: the disk refuses.
    """
    with refusals_as_os_errors():
        network.save_pretrained(folder, state_dict=weights)


def forget_quantisation(network: Any) -> None:
    """Make a model that was read from GGUF an ordinary one; else it can neither be saved nor reloaded as one."""
    network.hf_quantizer = None
    del network.hf_quantizer
    if hasattr(network.config, "quantization_config"):
        del network.config.quantization_config
