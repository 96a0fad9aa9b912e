"""Language models of transformers: opened from a folder, a hub name or a GGUF file, loaded when they are needed."""

from __future__ import annotations

import copy
import logging
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)
from transformers.utils import logging as transformers_logging

from lmflow_core.api import (
    EncodedSequence,
    LoadPlan,
    MediaTokenizer,
    ModelError,
    ModelSettings,
    ModelSketch,
    RequestError,
    Score,
)
from lmflow_transformers import rotary
from lmflow_transformers.attention import SdpaAttention, attend_with
from lmflow_transformers.batches import MediaInputs
from lmflow_transformers.devices import pick_device, pick_dtype
from lmflow_transformers.folder_check import check_folder
from lmflow_transformers.loading import drawn_by, forget_quantisation, hub_folder, opened, save_network
from lmflow_transformers.quantisation import check_quantisation, keep_trainable, quantised_by
from lmflow_transformers.regression import TASK, check_regression, own_task, padding_token, set_padding
from lmflow_transformers.scoring import scores, values
from lmflow_transformers.sharding import loaded_whole
from lmflow_transformers.tokenizers import TransformersTokenizer
from lmflow_transformers.writing import refusals_as_os_errors

# Loading bars of a library would cut into our own output, and its advice is not meant for our users.
transformers_logging.disable_progress_bar()
transformers_logging.set_verbosity_error()
if not torch.accelerator.is_available():
    # DeepSpeed is imported when a model is saved, wherever it is installed, and would tell on stdout what it runs on.
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

FACTORIES = {
    "causal": AutoModelForCausalLM,
    TASK: AutoModelForSequenceClassification,
    "image-text": AutoModelForImageTextToText,
}


class CausalModel:
    """A language model. ``network`` is the transformers model, perhaps wrapped by an adapter, once loaded.

    Attributes:
        source: what ``from_pretrained`` is called with, and ``arguments`` beside it.
        device: where the weights are or will be.
        dtype: their number format.
        media: turns images into tokens, in a model that sees.
        media_inputs: makes what the network takes of them when a batch is collated.
        media_ids: tokens that stand for parts of images.
        parts: what a model that sees is made of, by the names that a plan has for them.
        whole_parts: those of them that train as they are where the others train by adapters.
        unquantised: names that a module which is never quantised holds; empty for transformers' own choice.
        sees_ahead: whether tokens of an image see those behind them.
    """

    parts: tuple[str, ...] = ()
    whole_parts: tuple[str, ...] = ()
    unquantised: tuple[str, ...] = ()
    media_ids: frozenset[int] = frozenset()
    sees_ahead: bool = False

    media: MediaTokenizer | None = None
    media_inputs: MediaInputs | None = None

    def __init__(self, reference: str, source: str, arguments: dict[str, Any], settings: ModelSettings) -> None:
        self.reference = reference
        self.adapter: Path | None = None
        self.source = source
        self.arguments = arguments
        self._own_config = opened(AutoConfig, source, arguments, reference)
        self.tokenizer = TransformersTokenizer(opened(AutoTokenizer, source, arguments, reference))
        self._network: Any = None
        self.accept(LoadPlan(task=own_task(self._own_config), dtype=settings.dtype, device=settings.device))

    @property
    def context_length(self) -> int | None:
        """The longest sequence the model was made for, or its positions were scaled to, in tokens."""
        return rotary.reach(self.config)

    def accept(self, plan: LoadPlan) -> None:
        """Take the plan by which :meth:`load` will build the network.

        Raises:
            RequestError: the model cannot be loaded or quantised so, gives something else than the plan's task, has no
                rotary embeddings to scale, or has them scaled already.
        """
        if plan.task not in FACTORIES:
            raise RequestError(f"{self.reference}: no model of transformers is loaded for the task {plan.task!r} here")
        check_quantisation(self.reference, plan, self._own_config, from_gguf="gguf_file" in self.arguments)
        if plan.parts and not self.parts:
            raise RequestError(f"--train-parts: {self.reference} has no parts that train apart; leave it out")
        if plan.new_tokens:
            raise RequestError(f"{self.reference}: tokens cannot be added to its vocabulary while it is loaded")
        self.device = pick_device(plan.device)
        self.dtype = pick_dtype(plan.dtype, self.device)
        self.config = copy.deepcopy(self._own_config)
        if plan.task == TASK:
            check_regression(self.reference, self._own_config, from_gguf="gguf_file" in self.arguments)
            self.config.num_labels = 1
        elif own_task(self._own_config) == TASK:
            raise RequestError(f"{self.reference} gives a number for a text, and predicts no tokens")
        if plan.positions is not None:
            rotary.scale(self.config, plan.positions)
        self.plan = plan

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

    def part_of(self, name: str) -> str:
        """Return which of :attr:`parts` a module or parameter of the transformers model belongs to, by its name."""
        raise NotImplementedError(f"{name}: the model has no parts")

    def trains(self, name: str) -> bool:
        """Whether a module or parameter of the transformers model may train, by its name."""
        return not self.plan.parts or self.part_of(name) in self.plan.parts

    def trained_whole(self) -> list[str]:
        """Return the outermost modules of the loaded network that train as they are, not by adapters."""
        found: list[str] = []
        for name, module in self.base.named_modules():
            if name and self._trains_whole(name, module) and not any(name.startswith(f"{each}.") for each in found):
                found.append(name)
        return found

    def _trains_whole(self, name: str, module: torch.nn.Module) -> bool:
        parts = {self.part_of(f"{name}.{each}") for each, _ in module.named_parameters()} if self.parts else set()
        # A list of modules is never called, and cannot be replaced as a whole.
        called = not isinstance(module, torch.nn.ModuleList)
        return called and bool(parts) and parts <= set(self.whole_parts) & set(self.plan.parts)

    def load(self) -> None:
        """Load the weights, as the plan says."""
        if self._network is not None:
            return
        self._check_vocabulary()
        factory = FACTORIES[self.plan.task]
        with nullcontext() if self.plan.sharded else loaded_whole(), drawn_by(self.plan.seed):
            network = opened(factory, self.source, {**self.arguments, **self._building()}, self.reference)
        if self.plan.task == TASK:
            set_padding(network, self.tokenizer.inner, padding_token(self._own_config, self.tokenizer.inner))
        if self.plan.positions is not None:
            rotary.check(network)
        rotary.judge_each_pass_alone(network)
        if "gguf_file" in self.arguments:
            forget_quantisation(network)
        if self.plan.attention is not None:
            attend_with(network, self.plan.attention)
        if self.plan.quantization is not None:
            keep_trainable(network)
        # An engine that shards has put each process's part where it belongs; quantised weights are made on the device.
        in_place = self.plan.sharded or self.plan.quantization is not None
        self._network = (network if in_place else network.to(self.device)).eval()

    def _check_vocabulary(self) -> None:
        """Check that the weights have a row for each token; tokens that were added and are never used may have none."""
        rows = getattr(self.config.get_text_config(), "vocab_size", None)
        last = max(self.tokenizer.inner.backend_tokenizer.get_vocab(with_added_tokens=False).values(), default=0)
        if rows is not None and last >= rows:
            raise ModelError(f"{self.reference}: the tokenizer has a token {last}, and the model has {rows} tokens")

    def _building(self) -> dict[str, Any]:
        """Return how the network is built; the configuration is given only where it is not the checkpoint's own."""
        building: dict[str, Any] = {"dtype": self.dtype, "use_safetensors": "gguf_file" not in self.arguments}
        if self.plan.quantization is not None:
            building["quantization_config"] = quantised_by(self.plan.quantization, self.dtype, self.unquantised)
            building["device_map"] = {"": self.device}
        own = self.plan.positions is None and self.plan.task != TASK
        return building if own else {**building, "config": self.config}

    def score(self, sequences: Iterable[EncodedSequence]) -> Iterator[Score]:
        """Yield each sequence's summed NLL and its count of right guesses, several sequences per pass, isolated."""
        packed = self.plan.attention or SdpaAttention().implementation(str(self.device))
        return scores(self.base, sequences, packed, self.media_inputs)

    def values(self, sequences: Iterable[EncodedSequence]) -> Iterator[float]:
        """Yield the number for each sequence, several sequences per pass, isolated; the task is ``regression``."""
        packed = self.plan.attention or SdpaAttention().implementation(str(self.device))
        return values(self.base, sequences, packed)

    def save(self, folder: Path, chat_template: str | None, weights: Mapping[str, Any] | None = None) -> None:
        """Write safetensors, configuration and tokenizer; a chat template given replaces the tokenizer's own.

        ``weights`` are the model's by name, where they are spread over processes and were gathered.
        """
        save_network(self.base, folder, weights)
        self.save_tokenizer(folder, chat_template)

    def save_tokenizer(self, folder: Path, chat_template: str | None) -> None:
        """Write the tokenizer, with the chat template that was used."""
        if chat_template is not None:
            self.tokenizer.inner.chat_template = chat_template
        with refusals_as_os_errors():
            self.tokenizer.inner.save_pretrained(folder)


class CausalModelLoader:
    """Opens causal language models."""

    def sketch(self, reference: str, settings: ModelSettings) -> ModelSketch:
        """Read the configuration of a folder, a JSON file, a GGUF file or a hub name; memory is planned from it.

        Raises:
            ModelError: there is none, or transformers does not know its architecture.
        """
        from lmflow_transformers.planning.sketch import sketch

        return sketch(reference, settings)

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
