"""What a plugin must do, as classes of checks: one for plugins as a whole, and one for each extension point."""

from lmflow_core.testing.contracts.attention import AttentionContract
from lmflow_core.testing.contracts.base import ComponentContract, Contract
from lmflow_core.testing.contracts.benchmark import BenchmarkContract
from lmflow_core.testing.contracts.command import CommandContract
from lmflow_core.testing.contracts.dataset import DatasetContract
from lmflow_core.testing.contracts.decoder import DecoderContract
from lmflow_core.testing.contracts.engine import EngineContract
from lmflow_core.testing.contracts.exporter import ExporterContract
from lmflow_core.testing.contracts.model import ModelContract
from lmflow_core.testing.contracts.objective import ObjectiveContract
from lmflow_core.testing.contracts.optimizer import OptimizerContract
from lmflow_core.testing.contracts.plugin import PluginContract
from lmflow_core.testing.contracts.position_scaling import PositionScalingContract
from lmflow_core.testing.contracts.reward import RewardContract
from lmflow_core.testing.contracts.source import SourceContract
from lmflow_core.testing.contracts.template import TemplateContract
from lmflow_core.testing.contracts.tuner import TunerContract

_ALL: tuple[type[ComponentContract], ...] = (
    AttentionContract,
    BenchmarkContract,
    CommandContract,
    DatasetContract,
    DecoderContract,
    EngineContract,
    ExporterContract,
    ModelContract,
    ObjectiveContract,
    OptimizerContract,
    PositionScalingContract,
    RewardContract,
    SourceContract,
    TemplateContract,
    TunerContract,
)
CONTRACTS: dict[str, type[ComponentContract]] = {contract.kind: contract for contract in _ALL}

__all__ = [
    "CONTRACTS",
    "AttentionContract",
    "BenchmarkContract",
    "CommandContract",
    "ComponentContract",
    "Contract",
    "DatasetContract",
    "DecoderContract",
    "EngineContract",
    "ExporterContract",
    "ModelContract",
    "ObjectiveContract",
    "OptimizerContract",
    "PluginContract",
    "PositionScalingContract",
    "RewardContract",
    "SourceContract",
    "TemplateContract",
    "TunerContract",
]
