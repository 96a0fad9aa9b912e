"""Attention implementations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

from lmflow_core.contracts.spec import Selector, Spec


class Attention(Protocol):
    """Target of an ``AttentionSpec``."""

    def implementation(self, device: str) -> str:
        """Return the name under which the runtime knows this attention, ready for use on a device.

        Raises:
            RequestError: the device or an installed library does not allow it.
        """


@dataclass(frozen=True, kw_only=True)
class AttentionSpec(Spec):
    """An attention implementation; ``target(options)`` satisfies ``Attention``.

    Example::

        @hookimpl
        def lmflow_register_attentions():
            yield AttentionSpec(
                name="xformers", target="lmflow_xformers.attention:Xformers", summary="Attention of xformers."
            )
    """

    kind: ClassVar[str] = "attention"
    contract: ClassVar[type | None] = Attention
    selector: ClassVar[Selector | None] = Selector(
        "attention",
        "Attention implementation; outside of training the model's own when left out.",
        {"finetune": "sdpa", "evaluate": None, "evaluate --reward": None, "generate": None, "chat": None},
    )
