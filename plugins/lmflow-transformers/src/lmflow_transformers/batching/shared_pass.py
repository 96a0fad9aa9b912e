"""One pass of a model over parts of several texts.

The tokens of all texts lie end to end in one row, so each weight is read once for all of them. Attention takes one text
at a time: its new tokens see what its own cache holds, so that no text is padded and none sees another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from lmflow_transformers.attention import AttentionInputs, packed_attention, registered_attention, using_attention
from lmflow_transformers.batching.texts import TextCache
from lmflow_transformers.linear import keep_copies
from lmflow_transformers.models import CausalModel

_SHARED = "lmflow_shared_pass"


@dataclass(frozen=True)
class Part:
    """Tokens of one text that are read in a pass.

    Attributes:
        cache: of the text; it has seen what is before them.
        ids: the tokens, at least one.
        outputs: behind how many of them, counted from the last, logits are wanted.
        shown: what the network takes of the images that are among them; at most one part of a pass shows any. Positions
            along three axes, ``position_ids`` (3, 1, tokens), may be among it in any part.
    """

    cache: TextCache
    ids: Sequence[int]
    outputs: int
    shown: Mapping[str, Any] = field(default_factory=dict)


def prepare_passes(model: CausalModel) -> None:
    """Set a loaded model up for :func:`shared_pass`, which may then be called often."""
    keep_copies(model.network)
    AttentionInterface.register(_SHARED, _attend_by_text)
    AttentionMaskInterface.register(_SHARED, lambda *_, **__: None)


def shared_pass(model: CausalModel, parts: Sequence[Part]) -> list[torch.Tensor]:
    """Read the parts; return for each its logits (outputs, vocabulary), float32.

    Whoever calls this ends the pass in each cache, which knows the tokens then.
    """
    device = model.device
    ids = [token for part in parts for token in part.ids]
    positions, images = _placed(parts)
    with using_attention(model.base, _SHARED):
        output = model.network(
            input_ids=torch.tensor([ids], device=device),
            position_ids=positions.to(device),
            use_cache=False,
            logits_to_keep=torch.tensor(_outputs(parts), device=device),
            lmflow_parts=_Parts(parts, registered_attention(model.plan.attention) or packed_attention),
            **images,
        )
    counts = [part.outputs for part in parts]
    logits: torch.Tensor = output.logits[0, : sum(counts)].float()
    return list(logits.split(counts))


def _placed(parts: Sequence[Part]) -> tuple[torch.Tensor, dict[str, Any]]:
    """Begin the pass in each cache; return the positions of the row, and what the network takes of images."""
    placed: list[torch.Tensor] = []
    images: dict[str, Any] = {}
    for part in parts:
        counted = torch.tensor([[*part.cache.begin(len(part.ids))]])
        own = dict(part.shown)
        placed.append(own.pop("position_ids", counted))
        images |= own
    if any(each.dim() > 2 for each in placed):
        placed = [each.to(placed[0].device).expand(3, 1, -1) for each in placed]
    return torch.cat(placed, dim=-1), images


def _outputs(parts: Sequence[Part]) -> list[int]:
    """Return the places whose logits are wanted; the first where none is, as a head needs something to work on."""
    places: list[int] = []
    end = 0
    for part in parts:
        end += len(part.ids)
        places += range(end - part.outputs, end)
    return places or [0]


class _Parts:
    """The parts of a pass, on their way through the model to its attention."""

    def __init__(self, parts: Sequence[Part], attend: Any) -> None:
        self._parts = parts
        self._attend = attend

    def attended(self, layer: int, states: Sequence[torch.Tensor], options: dict[str, Any]) -> torch.Tensor:
        """Return the attended values (1, T, heads, head size) of the tokens of all parts."""
        window = options.pop("window")
        lengths = [len(part.ids) for part in self._parts]
        split = zip(*(each.split(lengths, dim=2) for each in states), strict=True)
        outputs = []
        for part, (query, key, value) in zip(self._parts, split, strict=True):
            seen = part.cache.extend(layer, key, value, window)
            if seen.mask is not None:
                outputs.append(_masked(query, seen.keys, seen.values, seen.mask, options))
            else:
                inputs = AttentionInputs(query, seen.keys, seen.values, window=seen.window, **options)
                outputs.append(self._attend(inputs))
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)


def _masked(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor, options: dict[str, Any]
) -> torch.Tensor:
    grouped = query.shape[1] != key.shape[1]
    attended = scaled_dot_product_attention(
        query, key, value, attn_mask=mask, scale=options["scaling"], enable_gqa=grouped
    )
    return attended.transpose(1, 2)


def _attend_by_text(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    lmflow_parts: Any = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    options = {"window": sliding_window, "scaling": scaling, "softcap": softcap, "sinks": s_aux}
    return lmflow_parts.attended(module.layer_idx, (query, key, value), options), None
