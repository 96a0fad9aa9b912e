"""The public interface of the core: the one module that a plugin may import from it.

Everything here is stable within a minor version; everything else is private. ``API_LEVEL`` rises by one with
each addition.
"""

from lmflow_core.contracts import (
    IGNORE,
    Attention,
    BatchDecoder,
    DatasetFormat,
    Decoder,
    DecodeStep,
    Encoded,
    EncodedDataset,
    Engine,
    Exporter,
    ExportReport,
    LanguageModel,
    LossPoint,
    ModelLoader,
    Objective,
    Score,
    Template,
    Tokenizer,
    TrainingJob,
    TrainingReport,
    Tuner,
    World,
)
from lmflow_core.conversations import ROLES, Conversation, Example, Message, Prompted, Segment, Text, ToolCall
from lmflow_core.errors import DataError, LmflowError, ModelError, OptionError, OutputError, RequestError
from lmflow_core.hookspecs import hookimpl
from lmflow_core.options import option
from lmflow_core.settings import ModelSettings, TrainingSettings
from lmflow_core.specs import (
    AttentionSpec,
    CommandSpec,
    DatasetSpec,
    DecoderSpec,
    EngineSpec,
    ExporterSpec,
    ModelSpec,
    ObjectiveSpec,
    TemplateSpec,
    TunerSpec,
)
from lmflow_core.templates import ChatTemplate

API_LEVEL = 1

__all__ = [
    "API_LEVEL",
    "IGNORE",
    "ROLES",
    "Attention",
    "AttentionSpec",
    "BatchDecoder",
    "ChatTemplate",
    "CommandSpec",
    "Conversation",
    "DataError",
    "DatasetFormat",
    "DatasetSpec",
    "DecodeStep",
    "Decoder",
    "DecoderSpec",
    "Encoded",
    "EncodedDataset",
    "Engine",
    "EngineSpec",
    "Example",
    "ExportReport",
    "Exporter",
    "ExporterSpec",
    "LanguageModel",
    "LmflowError",
    "LossPoint",
    "Message",
    "ModelError",
    "ModelLoader",
    "ModelSettings",
    "ModelSpec",
    "Objective",
    "ObjectiveSpec",
    "OptionError",
    "OutputError",
    "Prompted",
    "RequestError",
    "Score",
    "Segment",
    "Template",
    "TemplateSpec",
    "Text",
    "Tokenizer",
    "ToolCall",
    "TrainingJob",
    "TrainingReport",
    "TrainingSettings",
    "Tuner",
    "TunerSpec",
    "World",
    "hookimpl",
    "option",
]
