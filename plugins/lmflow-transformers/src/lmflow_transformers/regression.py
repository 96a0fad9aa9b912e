"""Networks of the task ``regression``: a number for a sequence, read by a linear head at its last token.

Transformers' own rule is kept: the head reads the last token that is not the padding token of the configuration.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoModelForSequenceClassification

from lmflow_core.api import EncodedExample, EncodedSequence, ModelError, RequestError
from lmflow_transformers.batches import Batch, collate
from lmflow_transformers.comparing import alike
from lmflow_transformers.likelihood.network import hidden_states, of_batch

TASK = "regression"
_CLASS = "ForSequenceClassification"
_PROBE = (3, 5, 7, 9, 11, 13)


def own_task(config: Any) -> str:
    """Return what a model that is saved with a configuration gives: ``regression`` or ``causal``."""
    names = getattr(config, "architectures", None) or [""]
    return TASK if str(names[0]).endswith(_CLASS) else "causal"


def check_regression(reference: str, config: Any, *, from_gguf: bool) -> None:
    """Check that a network that gives a number can be made of a model.

    Args:
        reference: what the user called the model.
        config: its own configuration.
        from_gguf: whether the weights come from a GGUF file.

    Raises:
        RequestError: it cannot; the message tells why.
    """
    if from_gguf:
        raise RequestError(
            f"{reference}: a GGUF file holds no model that gives a number for a text: "
            "lmflow export --format huggingface writes a folder that one can be made of"
        )
    known = type(config) in AutoModelForSequenceClassification._model_mapping
    if not known and "AutoModelForSequenceClassification" not in (getattr(config, "auto_map", None) or {}):
        raise RequestError(f"{reference}: transformers has no {config.model_type} that gives a number for a text")
    if own_task(config) == TASK and config.num_labels != 1:
        raise RequestError(f"{reference} gives {config.num_labels} numbers for a text, where one is needed")


def padding_token(config: Any, tokenizer: Any) -> int:
    """Return the id of a token that may fill up texts whose last token is to be read.

    It must not end a text itself: transformers would read the token before it. So it is none that ends an answer, and
    else the tokenizer's own, the one for unknown text or the one that opens a text. A model that gives a number
    already keeps its own.

    Args:
        config: of the model.
        tokenizer: of transformers.

    Raises:
        ModelError: there is no such token.
    """
    text = config.get_text_config()
    if own_task(config) == TASK and text.pad_token_id is not None:
        return int(text.pad_token_id)
    configured = text.eos_token_id if isinstance(text.eos_token_id, list) else [text.eos_token_id]
    ends = {tokenizer.eos_token_id, *configured}
    named = (tokenizer.pad_token_id, text.pad_token_id, tokenizer.unk_token_id, tokenizer.bos_token_id)
    others = sorted(number for number, token in tokenizer.added_tokens_decoder.items() if token.special)
    for number in (*named, *others):
        if number is not None and number not in ends:
            return int(number)
    raise ModelError("the tokenizer has no control token beside the one that ends a text, so none can pad texts")


def set_padding(network: Any, tokenizer: Any, token: int) -> None:
    """Let a network and the tokenizer that is saved with it pad with a token."""
    network.config.get_text_config().pad_token_id = token
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(token)


def sequence_values(network: Any, batch: Batch) -> torch.Tensor:
    """Return the number that a network gives to each sequence of a batch, with gradients.

    Args:
        network: a transformers model with a linear head for one number; adapters may be inside of it.
        batch: of any number of sequences, of T tokens.

    Returns:
        (sequences,), float32. The head works in the format of its own weights, under autocast too.
    """
    head = _head(network)
    read = hidden_states(network, batch, _last_tokens(network, batch))
    with torch.autocast(read.device.type, enabled=False):
        values: torch.Tensor = head(read.to(_dtype(head)))
    return values.float()[:, 0]


def _head(network: Any) -> torch.nn.Module:
    """Return what stands behind the trunk.

    Raises:
        ModelError: that is not one module.
    """
    parts = [part for part in network.children() if part is not network.base_model and list(part.parameters())]
    if len(parts) != 1:
        raise ModelError(f"{type(network).__name__} has {len(parts)} modules behind its trunk, where one head is known")
    head: torch.nn.Module = parts[0]
    return head


def _dtype(head: torch.nn.Module) -> torch.dtype:
    """Return the number format of a head's weights; where peft trains a copy of it, that is behind the frozen one."""
    return [parameter.dtype for parameter in head.parameters()][-1]


def _last_tokens(network: Any, batch: Batch) -> torch.Tensor:
    """Return the place of the last token of each sequence that pads nothing, or of its first where all do."""
    ids = of_batch(torch.cat([inputs["input_ids"][0] for inputs in batch.inputs]), batch)
    starts, places = batch.ends[:-1], torch.arange(len(ids), device=ids.device)
    token = network.config.get_text_config().pad_token_id
    if token is None:
        return batch.ends[1:] - 1
    kept = torch.where(ids == token, starts[batch.sequence_of_position], places)
    return starts.scatter_reduce(0, batch.sequence_of_position, kept, "amax")


@torch.no_grad()
def check_values(network: Any) -> None:
    """Check that :func:`sequence_values` gives what a network itself gives, tried on a few tokens.

    Raises:
        ModelError: it gives something else.
    """
    ids = [number % network.config.get_text_config().vocab_size for number in _PROBE]
    batch = collate([EncodedExample((EncodedSequence(ids, ids),))], isolated=False).to(network.device)
    training = network.training
    network.eval()
    try:
        ours = sequence_values(network, batch)
        mixed = _dtype(_head(network)) != network.dtype
        with torch.autocast(network.device.type, torch.bfloat16, enabled=mixed):
            own = network(input_ids=batch.inputs[0]["input_ids"], use_cache=False).logits[0].float()
    finally:
        network.train(training)
    if own.shape != ours.shape or not alike(ours, own, 1e-3 if network.dtype == torch.float32 else 1e-1):
        raise ModelError(f"what {type(network).__name__} gives for a text is not what its head reads at the last token")
