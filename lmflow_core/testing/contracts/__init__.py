"""What a plugin must do, as classes of checks: one for plugins as a whole, and one for each extension point."""

from lmflow_core.testing.contracts.attention import AttentionContract
from lmflow_core.testing.contracts.base import ComponentContract, Contract
from lmflow_core.testing.contracts.decoder import DecoderContract
from lmflow_core.testing.contracts.exporter import ExporterContract
from lmflow_core.testing.contracts.model import ModelContract
from lmflow_core.testing.contracts.plugin import PluginContract
from lmflow_core.testing.contracts.position_scaling import PositionScalingContract
from lmflow_core.testing.contracts.tuner import TunerContract

_ALL: tuple[type[ComponentContract], ...] = (
    AttentionContract,
    DecoderContract,
    ExporterContract,
    ModelContract,
    PositionScalingContract,
    TunerContract,
)
CONTRACTS: dict[str, type[ComponentContract]] = {contract.kind: contract for contract in _ALL}

__all__ = [
    "CONTRACTS",
    "AttentionContract",
    "ComponentContract",
    "Contract",
    "DecoderContract",
    "ExporterContract",
    "ModelContract",
    "PluginContract",
    "PositionScalingContract",
    "TunerContract",
]
