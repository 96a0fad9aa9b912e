"""Position scaling: schemes that extend rotary positions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from lmflow_core.contracts.spec import Selector, Spec


@dataclass(frozen=True)
class Rope:
    """The rotary embeddings of a model.

    Attributes:
        parameters: transformers' ``rope_parameters``: ``rope_type``, ``rope_theta`` and what the type needs besides.
        dimension: features of a head that are rotated; there are half as many frequencies.
        length: positions the model was made for, its ``max_position_embeddings``.
    """

    parameters: Mapping[str, Any]
    dimension: int
    length: int


class PositionScaling(Protocol):
    """Target of a ``PositionScalingSpec``: a pure function of numbers, with no model in sight."""

    def __call__(self, rope: Rope, factor: float, options: Any) -> Rope:
        """Return the rotary embeddings of a model whose positions reach ``factor`` times as far.

        Args:
            rope: unscaled, of type ``default``.
            factor: 1 or more; 1 leaves every frequency as it is.
            options: the spec's options object, or None.
        """


@dataclass(frozen=True)
class ScaledPositions:
    """A chosen scheme and how far it is to reach, as part of a load plan; ``options`` are the scheme's own."""

    name: str
    scheme: PositionScaling
    factor: float
    options: Any


@dataclass(frozen=True, kw_only=True)
class PositionScalingSpec(Spec):
    """A way to extend rotary positions; ``target(rope, factor, options)`` satisfies ``PositionScaling``.

    Example::

        @hookimpl
        def lmflow_register_position_scalings():
            yield PositionScalingSpec(
                name="cubic", target="lmflow_cubic.scheme:cubic", summary="Frequencies slowed by a cube."
            )
    """

    kind: ClassVar[str] = "position_scaling"
    contract: ClassVar[type | None] = PositionScaling
    selector: ClassVar[Selector | None] = Selector(
        "position_scaling",
        "Way to extend rotary positions beyond the trained length.",
        dict.fromkeys(("finetune", "evaluate", "evaluate --reward", "export", "generate", "chat")),
    )
