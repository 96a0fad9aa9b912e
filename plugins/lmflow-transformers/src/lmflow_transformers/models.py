"""Causal language models: opened from a folder, a hub name or a GGUF file, loaded when they are needed."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from lmflow_core.api import Encoded, ModelError, ModelSettings, PositionScaling, Score
from lmflow_transformers import rotary
from lmflow_transformers.attention import SdpaAttention, using_attention
from lmflow_transformers.devices import pick_device, pick_dtype
from lmflow_transformers.isolation import keeps_apart, own_attention
from lmflow_transformers.loss import Head, head_is_plain, token_scores
from lmflow_transformers.packing import lay_out
from lmflow_transformers.tokenizers import TransformersTokenizer
from lmflow_transformers.writing import refusals_as_os_errors

# Loading bars of a library would cut into our own output, and its advice is not meant for our users.
transformers_logging.disable_progress_bar()
transformers_logging.set_verbosity_error()
warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")

_SCORED_AT_ONCE = 2048
_LOSS_CHUNK = 512
_WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
_HUB_FILES = [*_WEIGHTS, "*.json", "*.jinja", "*.txt", "tokenizer.model", "README.md"]


class CausalModel:
    """A causal language model. ``network`` is the transformers model, perhaps wrapped by an adapter, once loaded.

    ``source`` and ``arguments`` are what ``from_pretrained`` is called with.
    """

    def __init__(self, reference: str, source: str, arguments: dict[str, Any], settings: ModelSettings) -> None:
        self.reference = reference
        self.adapter: Path | None = None
        self.source = source
        self.arguments = arguments
        self.device = pick_device(settings.device)
        self.dtype = pick_dtype(settings.dtype, self.device)
        self.config = _opened(AutoConfig, source, arguments, reference)
        self.tokenizer = TransformersTokenizer(_opened(AutoTokenizer, source, arguments, reference))
        self._scaled = False
        self._attention: str | None = None
        self._network: Any = None

    @property
    def context_length(self) -> int | None:
        """The longest sequence the model was made for, or its positions were scaled to, in tokens."""
        return rotary.reach(self.config)

    def scale_positions(self, name: str, scaling: PositionScaling, factor: float, options: Any) -> None:
        """Scale the rotary positions of the network that :meth:`load` will build; it is saved with the model.

        Raises:
            RequestError: the model has no rotary embeddings, or is scaled already.
        """
        rotary.scale(self.config, name, scaling, factor, options)
        self._scaled = True

    def attend_with(self, implementation: str) -> None:
        """Let the network that :meth:`load` will build attend with an implementation that transformers knows."""
        self._attention = implementation

    @cached_property
    def folder(self) -> Path | None:
        """The folder of the model's own files: its own, the hub's cache of it, or None for what came from GGUF."""
        if "gguf_file" in self.arguments:
            return None
        if Path(self.source).is_dir():
            return Path(self.source)
        return hub_folder(self.source, self.arguments)

    @property
    def network(self) -> Any:
        """The loaded network.

        Raises:
            ModelError: :meth:`load` was not called.
        """
        if self._network is None:
            raise ModelError(f"the weights of {self.reference} are not loaded")
        return self._network

    @network.setter
    def network(self, network: Any) -> None:
        self._network = network

    @property
    def base(self) -> Any:
        """The transformers model itself, inside any adapter."""
        inner = getattr(self.network, "get_base_model", None)
        return inner() if inner else self.network

    def load(self) -> None:
        """Load the weights onto the device."""
        if self._network is not None:
            return
        network = _opened(
            AutoModelForCausalLM,
            self.source,
            {**self.arguments, **self._building()},
            self.reference,
        )
        if self._scaled:
            rotary.check(network)
        rotary.judge_each_pass_alone(network)
        if "gguf_file" in self.arguments:
            forget_quantisation(network)
        if self._attention is not None:
            network.set_attn_implementation(self._attention)
        self._network = network.to(self.device).eval()

    def _building(self) -> dict[str, Any]:
        """Return how the network is built; the configuration is given only where it is not the checkpoint's own."""
        own: dict[str, Any] = {"dtype": self.dtype, "use_safetensors": "gguf_file" not in self.arguments}
        return {**own, "config": self.config} if self._scaled else own

    @torch.no_grad()
    def score(self, examples: Iterable[Encoded]) -> Iterator[Score]:
        """Yield each example's summed NLL and its count of right guesses, several examples per pass, apart."""
        self.network.eval()
        packed = self._attention or SdpaAttention().implementation(str(self.device))
        apart = keeps_apart(self.base, packed)
        with using_attention(self.base, packed if apart else own_attention(self.base)):
            plain = head_is_plain(self.base)
            together = apart and not rotary.follows_length(self.base.config)
            for batch in _batches(examples, _SCORED_AT_ONCE if together else 0):
                yield from self._score_batch(batch, plain, apart)

    def _score_batch(self, batch: list[Encoded], plain: bool, apart: bool) -> Iterator[Score]:
        laid = {name: tensor.to(self.device) for name, tensor in lay_out(batch).items()}
        targets = laid.pop("shift_labels")[0]
        labelled = targets >= 0
        inputs = laid if apart else {"input_ids": laid["input_ids"]}
        if plain:
            hidden = self.base.get_decoder()(use_cache=False, **inputs).last_hidden_state[0]
            nll, right = token_scores(hidden[labelled], targets[labelled], Head.of(self.base), _LOSS_CHUNK)
        else:
            logits = self.base(use_cache=False, **inputs).logits[0][labelled].float()
            nll = torch.nn.functional.cross_entropy(logits, targets[labelled], reduction="none")
            right = logits.argmax(-1) == targets[labelled]
        ends = laid["cu_seq_lens_q"].tolist()
        counts = [int(labelled[start:end].sum()) for start, end in pairwise(ends)]
        for part, guessed, count in zip(nll.split(counts), right.split(counts), counts, strict=True):
            yield Score(float(part.double().sum()), count, int(guessed.sum()))

    def save(self, folder: Path, chat_template: str | None) -> None:
        """Write safetensors, configuration and tokenizer; a chat template given replaces the tokenizer's own."""
        save_network(self.base, folder)
        self.save_tokenizer(folder, chat_template)

    def save_tokenizer(self, folder: Path, chat_template: str | None) -> None:
        """Write the tokenizer, with the chat template that was used."""
        if chat_template is not None:
            self.tokenizer.inner.chat_template = chat_template
        self.tokenizer.inner.save_pretrained(folder)


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


def save_network(network: Any, folder: Path) -> None:
    """Write a transformers model's weights and configuration.

    Raises:
        OSError: the disk refuses.
    """
    with refusals_as_os_errors():
        network.save_pretrained(folder)


def forget_quantisation(network: Any) -> None:
    """Make a model that was read from GGUF an ordinary one; else it can neither be saved nor reloaded as one."""
    network.hf_quantizer = None
    del network.hf_quantizer
    if hasattr(network.config, "quantization_config"):
        del network.config.quantization_config


def _batches(examples: Iterable[Encoded], at_once: int) -> Iterator[list[Encoded]]:
    """Yield examples together up to a number of tokens; a longer one comes alone."""
    batch: list[Encoded] = []
    size = 0
    for example in examples:
        if batch and size + len(example.input_ids) > at_once:
            yield batch
            batch, size = [], 0
        batch.append(example)
        size += len(example.input_ids)
    if batch:
        yield batch


def _opened(factory: Any, source: str, arguments: dict[str, Any], reference: str) -> Any:
    try:
        return factory.from_pretrained(source, **arguments)
    except Exception as error:  # transformers raises many kinds; all mean that the reference cannot be opened
        reason = " ".join(str(error).split())
        raise ModelError(f"model {reference!r} cannot be opened: {reason[:500]}") from error


class CausalModelLoader:
    """Opens causal language models."""

    def open(self, reference: str, settings: ModelSettings) -> CausalModel:
        """Open a folder, a GGUF file or a hub name.

        Raises:
            ModelError: the folder lacks a configuration or weights, or transformers cannot open it.
        """
        arguments: dict[str, Any] = {"trust_remote_code": settings.trust_remote_code}
        path = Path(reference).expanduser()
        if path.is_dir():
            check_folder(path)
            return CausalModel(reference, str(path), {**arguments, "local_files_only": True}, settings)
        if path.suffix == ".gguf":
            arguments = {**arguments, "gguf_file": path.name, "local_files_only": True}
            return CausalModel(reference, str(path.parent), arguments, settings)
        offline = os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0")
        if settings.revision:
            arguments["revision"] = settings.revision
        return CausalModel(reference, reference, {**arguments, "local_files_only": offline}, settings)


def check_folder(folder: Path) -> None:
    """Check that a folder holds a configuration and safetensors weights.

    Raises:
        ModelError: one of them is missing.
    """
    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} is no model folder: it has no config.json")
    if not any(match for pattern in _WEIGHTS for match in folder.glob(pattern)):
        unsafe = sorted(file.name for file in folder.glob("*.bin"))
        hint = f" ({', '.join(unsafe)} is pickled, which LMFlow does not read: convert it)" if unsafe else ""
        raise ModelError(f"{folder} holds no weights: no *.safetensors file{hint}")
