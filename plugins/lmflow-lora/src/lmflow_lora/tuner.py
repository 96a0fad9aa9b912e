"""LoRA on peft (Hu et al., arXiv:2106.09685): small trained factors beside frozen weights."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch

from lmflow_core.api import Destination, LoadPlan, ModelError, ParameterGroup, RequestError, TrainingCallback, printable
from lmflow_lora.adapter_check import CONFIG, check_adapter
from lmflow_lora.fused import fuse_adapters
from lmflow_lora.library import peft
from lmflow_lora.options import LoraOptions
from lmflow_lora.whole import WHOLE, train_in_float32
from lmflow_transformers.api import CausalModel, parameter_groups, refusals_as_os_errors

_REGRESSION, _SEQ_CLS = "regression", "SEQ_CLS"


class LoraTuner:
    """Trains adapters and keeps them as plain peft adapters."""

    freezes_while_training = False
    name: ClassVar[str] = "lora"

    def __init__(self, options: LoraOptions | None = None) -> None:
        self._options = options or LoraOptions()
        self._initial: tempfile.TemporaryDirectory[str] | None = None
        self._fresh = True

    def plan(self, plan: LoadPlan) -> LoadPlan:
        """Ask nothing of the weights, which are frozen; peft keeps adapters in float32 beside weights of less."""
        return plan

    def check(self, model: CausalModel) -> None:
        """Check that what the model carries, if anything, is a LoRA adapter.

        Raises:
            ModelError: it is one of another tuner, which the result would not tell of.
            RequestError: none of the parts that train takes adapters, or PiSSA is to take from weights that are spread.
        """
        if model.adapter is not None and not (model.adapter / CONFIG).is_file():
            raise ModelError(f"--tuner {self.name} on the adapter in {model.adapter}: merge it first with lmflow merge")
        if model.adapter is not None and model.plan.task == _REGRESSION and not _has_head(model.adapter):
            raise ModelError(
                f"--tuner {self.name} on the adapter in {model.adapter}, which has no head that gives a number: "
                "merge it first with lmflow merge"
            )
        if model.plan.parts and set(model.plan.parts) <= set(model.whole_parts):
            raise RequestError(
                f"--train-parts {','.join(model.plan.parts)} with --tuner {self.name}: it trains as it is, without "
                "adapters: take --tuner full, or name parts that adapters are put on as well"
            )
        if model.plan.sharded and self._options.lora_pissa:
            raise RequestError(
                "--lora-pissa takes from weights, which this engine spreads: take --engine torchrun or --zero-stage 2"
            )

    def prepare(self, model: CausalModel, seed: int) -> None:
        """Wrap the network with fresh adapters.

        Raises:
            RequestError: none of the target modules is in the model, or its head would not train where it is new.
        """
        if isinstance(model.network, peft.PeftModel):
            self._fresh = False
            model.network.requires_grad_(False)
            _train_adapters(model.network)
            train_in_float32(model.network, within=model.plan.task != _REGRESSION)
            _fuse(model)
            return
        torch.manual_seed(seed)
        try:
            model.network = peft.get_peft_model(model.network, self._config(model))
        except ValueError as error:
            raise RequestError(f"--lora-target-modules: {error}") from error
        if model.plan.task == _REGRESSION:
            _check_head(model.network)
        train_in_float32(model.network, within=model.plan.task != _REGRESSION)
        if self._options.lora_pissa:
            self._remember_start(model.network)
        _fuse(model)

    def _config(self, model: CausalModel) -> peft.LoraConfig:
        options, task = self._options, model.plan.task
        whole = model.trained_whole()
        targets: Any = list(options.lora_target_modules)
        return peft.LoraConfig(
            task_type=_SEQ_CLS if task == _REGRESSION else "CAUSAL_LM",
            r=options.lora_r,
            lora_alpha=options.lora_alpha,
            lora_dropout=options.lora_dropout,
            target_modules=targets[0] if targets == ["all-linear"] else targets,
            exclude_modules=_without_adapters(model, whole) or None,
            modules_to_save=whole or None,
            use_dora=options.lora_dora,
            use_rslora=options.lora_rslora,
            init_lora_weights="pissa" if options.lora_pissa else True,
        )

    def _remember_start(self, network: Any) -> None:
        """Keep PiSSA's starting factors: the saved adapter is the difference, which fits the unchanged model."""
        self._initial = tempfile.TemporaryDirectory(prefix="lmflow-pissa-")
        config = network.peft_config["default"]
        config.init_lora_weights = True
        network.save_pretrained(self._initial.name)
        config.init_lora_weights = "pissa"

    def parameter_groups(self, model: CausalModel) -> Sequence[ParameterGroup]:
        """Return the adapters; for LoRA+ their B factors, and what has one dimension, in groups with a higher rate."""
        groups = parameter_groups(model.network)
        ratio = self._options.lora_plus_ratio
        return groups if ratio is None else [part for group in groups for part in _with_faster_b(group, ratio)]

    def callbacks(self, model: CausalModel, seed: int) -> Sequence[TrainingCallback]:
        """Add nothing to the run."""
        return ()

    def reference(self, model: CausalModel) -> AbstractContextManager[Any] | None:
        """Return a context without the adapters, unless training began with some or took from the weights (PiSSA)."""
        return model.network.disable_adapter() if self._fresh and not self._options.lora_pissa else None

    def save(self, model: CausalModel, destination: Destination) -> None:
        """Write the adapter and the tokenizer."""
        if not destination.is_main:
            return
        config = model.network.peft_config["default"]
        config.base_model_name_or_path = _base_name(model)
        arguments: dict[str, Any] = {"save_embedding_layers": False, "state_dict": destination.weights}
        if self._initial is not None:
            arguments["path_initial_model_for_weight_conversion"] = self._initial.name
        with refusals_as_os_errors():
            model.network.save_pretrained(destination.folder, **arguments)
        model.save_tokenizer(destination.folder, destination.chat_template)
        if self._initial is not None:
            self._initial.cleanup()

    def attach(self, model: CausalModel, folder: Path) -> None:
        """Put a saved adapter on a loaded model.

        Raises:
            ModelError: the adapter is damaged, or does not fit the model.
        """
        check_adapter(folder)
        try:
            model.network = peft.PeftModel.from_pretrained(model.network, str(folder)).eval()
        except Exception as error:  # peft raises many kinds; all mean that the two do not go together
            reason = printable(" ".join(str(error).split()) or type(error).__name__, 300)
            raise ModelError(f"the adapter in {folder} does not fit {model.reference}: {reason}") from error

    def base_reference(self, folder: Path) -> str | None:
        """Return the base model that an adapter's configuration names."""
        config = _read_json(folder / "adapter_config.json")
        named = config.get("base_model_name_or_path")
        if isinstance(named, str) and named and not (Path(named).is_absolute() and not Path(named).exists()):
            return named
        options = _read_json(folder / "run.json").get("options")
        return options.get("model") if isinstance(options, dict) else None

    def base_plan(self, folder: Path, plan: LoadPlan) -> LoadPlan:
        """Ask for a network that gives a number where the adapter has a head for one."""
        return replace(plan, task=_REGRESSION) if _has_head(folder) else plan


def _with_faster_b(group: ParameterGroup, ratio: float) -> Iterator[ParameterGroup]:
    """Split a group in two, of which the second trains so many times as fast (Hayou et al., arXiv:2402.12354)."""
    fast = {name: p for name, p in group.parameters.items() if "lora_B" in name or p.dim() == 1}
    slow = {name: p for name, p in group.parameters.items() if name not in fast}
    for parameters, factor in ((slow, 1.0), (fast, ratio)):
        if parameters:
            yield replace(group, parameters=parameters, lr_factor=factor)


def _base_name(model: CausalModel) -> str:
    if "gguf_file" in model.arguments:
        return str(Path(model.reference).absolute())
    return str(Path(model.source).absolute()) if Path(model.source).is_dir() else model.source


def _fuse(model: CausalModel) -> None:
    # ZeRO puts weights in their place for each of torch's own layers, and takes them away behind it.
    if not model.plan.sharded:
        fuse_adapters(model.network)


def _train_adapters(network: peft.PeftModel) -> None:
    for name, parameter in network.named_parameters():
        if "lora_" in name or WHOLE in name:
            parameter.requires_grad_(True)


def _without_adapters(model: CausalModel, whole: Sequence[str]) -> list[str]:
    """Return the modules of a model's parts that do not train, or train as they are."""
    names = [name for name, _ in model.base.named_modules() if name and model.plan.parts]
    return [name for name in names if not model.trains(name) or name.startswith(tuple(f"{each}." for each in whole))]


def _check_head(network: peft.PeftModel) -> None:
    """Check that the head trains, which peft saves whole beside the adapters.

    Raises:
        RequestError: it does not.
    """
    if not any(WHOLE in name and p.requires_grad for name, p in network.named_parameters()):
        raise RequestError("this model's head has a name that peft does not know, and would not train: --tuner full")


def _has_head(folder: Path) -> bool:
    """Whether a saved adapter has a head that gives a number."""
    return _read_json(folder / CONFIG).get("task_type") == _SEQ_CLS


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
