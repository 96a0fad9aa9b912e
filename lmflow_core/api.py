"""The public interface of the core: the one module that a plugin may import from it.

Everything here is stable within a minor version; everything else is private. ``API_LEVEL`` rises by one with
each addition.
"""

from lmflow_core.contracts.attention import Attention, AttentionSpec
from lmflow_core.contracts.benchmark import Benchmark, BenchmarkReport, BenchmarkSpec, Grid
from lmflow_core.contracts.command import CommandSpec, TalkingCommand
from lmflow_core.contracts.dataset import DatasetFormat, DatasetSpec
from lmflow_core.contracts.decoder import BatchDecoder, Decoder, DecoderSpec, DecodeStep, TokenLogprob
from lmflow_core.contracts.engine import Engine, EngineSpec, World
from lmflow_core.contracts.examples import (
    ROLES,
    Candidates,
    Conversation,
    Example,
    ImageText,
    Judged,
    Message,
    Preference,
    Prompted,
    Segment,
    Text,
    ToolCall,
    Value,
    as_turns,
    call_id,
    is_trained,
)
from lmflow_core.contracts.exporter import Exporter, ExporterSpec, ExportReport
from lmflow_core.contracts.generation import AnswerStream, DrawnToken, ModelOpener, TalkingModel
from lmflow_core.contracts.hooks import hookimpl
from lmflow_core.contracts.model import LanguageModel, ModelLoader, ModelSpec, Rescalable, Score
from lmflow_core.contracts.objective import EarlyCheck, LossPoint, Objective, ObjectiveSpec, TrainingJob, TrainingReport
from lmflow_core.contracts.position_scaling import PositionScaling, PositionScalingSpec, Rope
from lmflow_core.contracts.settings import DecodingSettings, ModelSettings, TrainingSettings
from lmflow_core.contracts.source import RowSource, SourceSpec
from lmflow_core.contracts.template import Template, TemplateSpec
from lmflow_core.contracts.tokens import IGNORE, Encoded, EncodedDataset, Tokenizer
from lmflow_core.contracts.tuner import Tuner, TunerSpec
from lmflow_core.errors import DataError, LmflowError, ModelError, OptionError, OutputError, RequestError
from lmflow_core.files.cache import cache_root, made_aside
from lmflow_core.generation.dialogue import Dialogue, messages_row
from lmflow_core.options import OptionField, option
from lmflow_core.templates import ChatTemplate, Thoughts, Tools

API_LEVEL = 1

__all__ = [
    "API_LEVEL",
    "IGNORE",
    "ROLES",
    "AnswerStream",
    "Attention",
    "AttentionSpec",
    "BatchDecoder",
    "Benchmark",
    "BenchmarkReport",
    "BenchmarkSpec",
    "Candidates",
    "ChatTemplate",
    "CommandSpec",
    "Conversation",
    "DataError",
    "DatasetFormat",
    "DatasetSpec",
    "DecodeStep",
    "Decoder",
    "DecoderSpec",
    "DecodingSettings",
    "Dialogue",
    "DrawnToken",
    "EarlyCheck",
    "Encoded",
    "EncodedDataset",
    "Engine",
    "EngineSpec",
    "Example",
    "ExportReport",
    "Exporter",
    "ExporterSpec",
    "Grid",
    "ImageText",
    "Judged",
    "LanguageModel",
    "LmflowError",
    "LossPoint",
    "Message",
    "ModelError",
    "ModelLoader",
    "ModelOpener",
    "ModelSettings",
    "ModelSpec",
    "Objective",
    "ObjectiveSpec",
    "OptionError",
    "OptionField",
    "OutputError",
    "PositionScaling",
    "PositionScalingSpec",
    "Preference",
    "Prompted",
    "RequestError",
    "Rescalable",
    "Rope",
    "RowSource",
    "Score",
    "Segment",
    "SourceSpec",
    "TalkingCommand",
    "TalkingModel",
    "Template",
    "TemplateSpec",
    "Text",
    "Thoughts",
    "TokenLogprob",
    "Tokenizer",
    "ToolCall",
    "Tools",
    "TrainingJob",
    "TrainingReport",
    "TrainingSettings",
    "Tuner",
    "TunerSpec",
    "Value",
    "World",
    "as_turns",
    "cache_root",
    "call_id",
    "hookimpl",
    "is_trained",
    "made_aside",
    "messages_row",
    "option",
]
