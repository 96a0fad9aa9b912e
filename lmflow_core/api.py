"""The public interface of the core: the one module that a plugin may import from it.

Everything here is stable within a minor version; everything else is private. ``API_LEVEL`` rises by one with
each addition.
"""

from lmflow_core.contracts.attention import Attention, AttentionSpec
from lmflow_core.contracts.benchmark import (
    AnsweringBenchmark,
    Benchmark,
    BenchmarkReport,
    BenchmarkSpec,
    DataBenchmark,
    Grid,
    MeasuredSet,
    PromptAnswers,
    SetsBenchmark,
)
from lmflow_core.contracts.command import ChatCommand, CommandSpec
from lmflow_core.contracts.dataset import DatasetFormat, DatasetSpec
from lmflow_core.contracts.decoder import (
    BatchDecoder,
    BatchLimits,
    BatchStep,
    Decoder,
    DecoderSpec,
    DecodeStep,
    DecodingRequest,
    RunningBatch,
    TokenLogprob,
)
from lmflow_core.contracts.engine import CommandLine, Engine, EngineSpec, Launcher, World
from lmflow_core.contracts.estimates import wilson
from lmflow_core.contracts.examples import (
    ROLES,
    Candidates,
    Conversation,
    Example,
    ImagePart,
    ImageText,
    Judged,
    Message,
    Preference,
    Prompt,
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
from lmflow_core.contracts.generation import (
    AnswerBatch,
    AnswerStream,
    ChatModel,
    GeneratedAnswer,
    ModelOpener,
    SampledToken,
    Written,
)
from lmflow_core.contracts.hooks import hookimpl
from lmflow_core.contracts.memory import MemoryPart, MemoryPlan, ModelSketch, Placement, PlannedRun
from lmflow_core.contracts.model import (
    LanguageModel,
    LoadPlan,
    ModelLoader,
    ModelServices,
    ModelSpec,
    Quantization,
    Score,
)
from lmflow_core.contracts.objective import (
    Curves,
    JobServices,
    MetricPoint,
    Objective,
    ObjectiveSpec,
    TrainingJob,
    TrainingReport,
    TrainingSetup,
)
from lmflow_core.contracts.optimizer import Optimizer, OptimizerSpec, ParameterGroup
from lmflow_core.contracts.position_scaling import PositionScaling, PositionScalingSpec, Rope, ScaledPositions
from lmflow_core.contracts.recipe import Recipe
from lmflow_core.contracts.reward import AnsweredPrompt, Reward, RewardSpec
from lmflow_core.contracts.settings import DecodingSettings, ModelSettings, TrainingSettings
from lmflow_core.contracts.source import Row, RowSource, SourceSpec
from lmflow_core.contracts.template import Template, TemplateSpec
from lmflow_core.contracts.tokens import (
    IGNORE,
    EncodedDataset,
    EncodedExample,
    EncodedSequence,
    Media,
    MediaTokenizer,
    Tokenizer,
)
from lmflow_core.contracts.tuner import Destination, TrainingCallback, TrainingState, Tuner, TunerSpec
from lmflow_core.errors import (
    DataError,
    LmflowError,
    ModelError,
    OptionError,
    OutputError,
    PromptTooLongError,
    RequestError,
    is_out_of_memory,
    printable,
)
from lmflow_core.files.atomic import atomic_text
from lmflow_core.files.cache import atomic_cache_folder, cache_root
from lmflow_core.files.output import atomic_folder, check_output
from lmflow_core.generation.callers import asks_this_machine, is_loopback
from lmflow_core.generation.history import messages_row
from lmflow_core.generation.question_files import read_mapping, read_rows
from lmflow_core.generation.reading import (
    SHORTEST_BEGINNING,
    attention_crossover,
    check_cache,
    common_beginning,
    is_read_soon,
    reading_parts,
)
from lmflow_core.generation.rendered import encode_segments
from lmflow_core.generation.services import model_services
from lmflow_core.generation.session import ChatSession
from lmflow_core.installing import how_to_install
from lmflow_core.options import OptionField, option
from lmflow_core.templates import ChatTemplate, Reasoning, Tools
from lmflow_core.templates.control_tokens import ControlTextError, PlainTextEncoder
from lmflow_core.templates.packaged import packaged_template
from lmflow_core.templates.sandbox import TemplateLimitError, render_jinja

API_LEVEL = 1

__all__ = [
    "API_LEVEL",
    "IGNORE",
    "ROLES",
    "SHORTEST_BEGINNING",
    "AnswerBatch",
    "AnswerStream",
    "AnsweredPrompt",
    "AnsweringBenchmark",
    "Attention",
    "AttentionSpec",
    "BatchDecoder",
    "BatchLimits",
    "BatchStep",
    "Benchmark",
    "BenchmarkReport",
    "BenchmarkSpec",
    "Candidates",
    "ChatCommand",
    "ChatModel",
    "ChatSession",
    "ChatTemplate",
    "CommandLine",
    "CommandSpec",
    "ControlTextError",
    "Conversation",
    "Curves",
    "DataBenchmark",
    "DataError",
    "DatasetFormat",
    "DatasetSpec",
    "DecodeStep",
    "Decoder",
    "DecoderSpec",
    "DecodingRequest",
    "DecodingSettings",
    "Destination",
    "EncodedDataset",
    "EncodedExample",
    "EncodedSequence",
    "Engine",
    "EngineSpec",
    "Example",
    "ExportReport",
    "Exporter",
    "ExporterSpec",
    "GeneratedAnswer",
    "Grid",
    "ImagePart",
    "ImageText",
    "JobServices",
    "Judged",
    "LanguageModel",
    "Launcher",
    "LmflowError",
    "LoadPlan",
    "MeasuredSet",
    "Media",
    "MediaTokenizer",
    "MemoryPart",
    "MemoryPlan",
    "Message",
    "MetricPoint",
    "ModelError",
    "ModelLoader",
    "ModelOpener",
    "ModelServices",
    "ModelSettings",
    "ModelSketch",
    "ModelSpec",
    "Objective",
    "ObjectiveSpec",
    "Optimizer",
    "OptimizerSpec",
    "OptionError",
    "OptionField",
    "OutputError",
    "ParameterGroup",
    "Placement",
    "PlainTextEncoder",
    "PlannedRun",
    "PositionScaling",
    "PositionScalingSpec",
    "Preference",
    "Prompt",
    "PromptAnswers",
    "PromptTooLongError",
    "Prompted",
    "Quantization",
    "Reasoning",
    "Recipe",
    "RequestError",
    "Reward",
    "RewardSpec",
    "Rope",
    "Row",
    "RowSource",
    "RunningBatch",
    "SampledToken",
    "ScaledPositions",
    "Score",
    "Segment",
    "SetsBenchmark",
    "SourceSpec",
    "Template",
    "TemplateLimitError",
    "TemplateSpec",
    "Text",
    "TokenLogprob",
    "Tokenizer",
    "ToolCall",
    "Tools",
    "TrainingCallback",
    "TrainingJob",
    "TrainingReport",
    "TrainingSettings",
    "TrainingSetup",
    "TrainingState",
    "Tuner",
    "TunerSpec",
    "Value",
    "World",
    "Written",
    "as_turns",
    "asks_this_machine",
    "atomic_cache_folder",
    "atomic_folder",
    "atomic_text",
    "attention_crossover",
    "cache_root",
    "call_id",
    "check_cache",
    "check_output",
    "common_beginning",
    "encode_segments",
    "hookimpl",
    "how_to_install",
    "is_loopback",
    "is_out_of_memory",
    "is_read_soon",
    "is_trained",
    "messages_row",
    "model_services",
    "option",
    "packaged_template",
    "printable",
    "read_mapping",
    "read_rows",
    "reading_parts",
    "render_jinja",
    "wilson",
]
