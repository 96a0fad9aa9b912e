"""``README.md`` of a result: what it is, how it was trained and how to load it, as a hub of models shows it.

Names of models, data and options are a user's or a stranger's: none of them can end the front matter or a line of it.
Of a path only its last part is told.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lmflow_core.data.files import is_hub_name
from lmflow_core.errors import printable
from lmflow_core.files.output import RUN_FILE, write_text
from lmflow_core.models.opening import OpenModel

CARD = "README.md"
# What a hub takes as the name of a model or a data set, and as a tag.
_HUB_ID = re.compile(r"(?!.*(--|\.\.))[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?", re.ASCII)
_TAG = re.compile(r"[A-Za-z0-9][\w.:-]*", re.ASCII)
# For each task of a load plan, what the network is on a hub, and what transformers calls its class.
_TASKS = {
    "causal": ("text-generation", "AutoModelForCausalLM"),
    "image-text": ("image-text-to-text", "AutoModelForImageTextToText"),
    "regression": ("text-classification", "AutoModelForSequenceClassification"),
}
# The class of peft for an adapter of a task, what it is called with, and what is to be set behind that: a head for one
# number, and the token that pads, which the base model has another of or none.
_PEFT = {
    "causal": ("AutoPeftModelForCausalLM", '"."', ""),
    "regression": (
        "AutoPeftModelForSequenceClassification",
        '".", num_labels=1',
        "\nmodel.config.pad_token_id = tokenizer.pad_token_id",
    ),
}
_LIBRARIES = ("transformers", "peft", "torch")


@dataclass(frozen=True)
class CardFacts:
    """What a card tells.

    Attributes:
        reference: of the model that was trained or exported, as ``--model`` takes it.
        hub_name: of the same model on a hub, if it has one.
        task: of its load plan.
        library: the library that loads the result: ``transformers``, ``peft`` or another.
        made: what the result is: ``finetuned``, ``adapter``, ``merged`` or ``exported``.
        chats: whether the result has a conversation template.
        record: content of the ``run.json`` of the training, which may be a stranger's.
        versions: of what wrote the result, as ``run.json`` has them.
    """

    reference: str
    hub_name: str | None
    task: str
    library: str
    made: str
    chats: bool
    record: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, Any] = field(default_factory=dict)


def write_card(folder: Path, facts: CardFacts) -> int:
    """Write the card into a folder, in the place of any that a library wrote, and return its size in bytes.

    Raises:
        OutputError: the disk refuses the write.
    """
    write_text(folder / CARD, card(facts))
    return (folder / CARD).stat().st_size


def hub_names(opened: OpenModel, datasets: Iterable[Path]) -> dict[str, Any]:
    """Return which names of a run are those of a hub, for its record: later its paths may not be there to tell."""
    names = [path.as_posix().partition(":")[0] for path in datasets if is_hub_name(path)]
    return {"model": hub_name(opened), "datasets": names}


def hub_name(opened: OpenModel) -> str | None:
    """Return the name of an open model on a hub, or None where it has none."""
    reference = opened.model.reference
    return opened.hub_name or (reference if is_hub_name(Path(reference)) else None)


def library_of(folder: Path) -> str | None:
    """Return the library that loads what a tuner wrote, told from the files, or None where no plain one does."""
    if (folder / "adapter_config.json").is_file():
        return "peft"
    return "transformers" if (folder / "config.json").is_file() else None


def read_record(folder: Path | None) -> Mapping[str, Any]:
    """Return the ``run.json`` of a folder, or nothing where it has none that can be read."""
    try:
        record = json.loads((folder / RUN_FILE).read_text(encoding="utf-8")) if folder is not None else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def card(facts: CardFacts) -> str:
    """Return the text of the card."""
    front = yaml.safe_dump(_front_matter(facts), sort_keys=False, allow_unicode=True)
    sections = [_opening(facts), *_training(facts.record), _loading(facts), _closing(facts.versions)]
    return f"---\n{front}---\n\n" + "\n\n".join(sections) + "\n"


def _front_matter(facts: CardFacts) -> dict[str, Any]:
    # A folder's name is nobody's on a hub, or somebody else's.
    options, base = _options(facts.record), facts.hub_name or ""
    names = [name for name in _datasets(facts.record) if _HUB_ID.fullmatch(name)]
    tags = ["lmflow", *(str(options.get(name)) for name in ("tuner", "objective") if options.get(name))]
    matter = {
        "base_model": base if _HUB_ID.fullmatch(base) else None,
        "library_name": facts.library,
        "pipeline_tag": _TASKS[facts.task][0] if facts.task in _TASKS else None,
        "tags": [tag for tag in dict.fromkeys(tags) if _TAG.fullmatch(tag)],
        "datasets": list(dict.fromkeys(names)),
    }
    return {name: value for name, value in matter.items() if value}


def _opening(facts: CardFacts) -> str:
    base = _code(facts.reference if facts.reference == facts.hub_name else _last_part(facts.reference))
    title, text = {
        "finetuned": (f"A model trained from {base}", f"This is a whole model, trained with LMFlow from {base}."),
        "adapter": (
            f"An adapter for {base}",
            f"This is an adapter, trained with LMFlow. It is put on {base}, whose weights are not in here.",
        ),
        "merged": (
            f"{base} with an adapter",
            f"This is a whole model: {base} with an adapter merged into it by LMFlow.",
        ),
        "exported": (base, f"This is {base}, written by LMFlow."),
    }[facts.made]
    return f"# {title}\n\n{text}"


def _training(record: Mapping[str, Any]) -> Iterator[str]:
    lines = [f"* {name}: {value}" for name, value in _figures(record)]
    if lines:
        yield "## How it was trained\n\n" + "\n".join(lines)


def _figures(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    options = _options(record)
    yield from _chosen(options)
    if names := _datasets(record):
        yield "data", ", ".join(map(_code, names)) + _counted(record)
    if isinstance(record.get("template"), str):
        yield "conversation template", _code(record["template"])
    for name, word in (("steps", "steps"), ("tokens", "tokens"), ("learning_rate", "peak learning rate")):
        if type(record.get(name)) in (int, float):
            yield word, f"{record[name]:,}" if type(record[name]) is int else f"{record[name]:g}"
    unit = printable(str(record.get("loss_unit") or "tokens"), 40)
    for name, word in (("losses", "loss"), ("validation_losses", "validation loss")):
        points = _points(record.get(name))
        if points:
            ends = points if len(points) == 1 else [points[0], points[-1]]
            told = [f"{value:.4f} at step {step}" for step, value in ends]
            yield f"{word} (mean over {_code(unit)})", ", then ".join(told)


def _chosen(options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name in ("tuner", "objective"):
        if isinstance(options.get(name), str):
            yield name, _code(options[name])
    if rewards := _rewards(options):
        yield "reward", rewards


def _counted(record: Mapping[str, Any]) -> str:
    """Return how much data it was, in parentheses."""
    data = record.get("data")
    counts = data if isinstance(data, Mapping) else {}
    words = {**_COUNTS, "examples": "pairs"} if record.get("loss_unit") == "pairs" else _COUNTS
    told = [f"{counts[key]:,} {word}" for key, word in words.items() if type(counts.get(key)) is int and counts[key]]
    return f" ({', '.join(told)})" if told else ""


def _rewards(options: Mapping[str, Any]) -> str:
    """Return the rewards that the answers of a run were scored by, with their weights."""
    given = options.get("reward")
    listed = [one.partition("=") for one in (given if isinstance(given, list) else []) if isinstance(one, str)]
    return ", ".join(_code(name) + (f" times {_code(weight)}" if weight else "") for name, _, weight in listed)


_COUNTS = {"examples": "examples", "tokens": "tokens", "trained_tokens": "tokens trained on"}


def _points(curve: object) -> list[tuple[int, float]]:
    """Return the points of a curve that have a value."""
    points = curve if isinstance(curve, list) else []
    pairs = [point for point in points if isinstance(point, list) and len(point) == 2]
    return [(step, value) for step, value in pairs if type(step) is int and type(value) in (int, float)]


def _loading(facts: CardFacts) -> str:
    parts = ["## How to load it", "In this folder:"]
    if code := _snippet(facts):
        parts.append(f"```python\n{code}\n```")
        if facts.library == "peft" and facts.reference != facts.hub_name:
            parts.append(
                "`adapter_config.json` tells where the base model lay; where it lies elsewhere, change it there."
            )
    command = "lmflow chat --model ." if facts.chats else 'lmflow generate --model . --prompt "Once upon a time" --raw'
    if facts.task == "causal":
        parts.append(f"```sh\n{command}\n```")
    return "\n\n".join(parts)


def _snippet(facts: CardFacts) -> str | None:
    """Return how plain libraries load the result, or None where they alone cannot."""
    _, name = _TASKS.get(facts.task, ("", ""))
    given, behind = '"."', ""
    if facts.library == "transformers" and name:
        imports = f"from transformers import {', '.join(sorted([name, 'AutoTokenizer']))}"
    elif facts.library == "peft" and facts.task in _PEFT and _has_plain_base(facts):
        name, given, behind = _PEFT[facts.task]
        imports = f"from peft import {name}\nfrom transformers import AutoTokenizer"
    else:
        return None
    lines = f'model = {name}.from_pretrained({given})\ntokenizer = AutoTokenizer.from_pretrained(".")'
    return f"{imports}\n\n{lines}{behind}"


def _has_plain_base(facts: CardFacts) -> bool:
    """Whether peft loads the base as it was in training: not from GGUF, and not with positions that LMFlow scaled."""
    return not facts.reference.lower().endswith(".gguf") and not _options(facts.record).get("position_scaling")


def _closing(versions: Mapping[str, Any]) -> str:
    libraries = versions.get("libraries") or {}
    told = [f"lmflow-core {versions.get('lmflow_core')}"]
    told += [f"{name} {libraries[name]}" for name in _LIBRARIES if name in libraries]
    return (
        f"Written with {', '.join(told)}. "
        "No licence is given here: that of the base model and of the data decide what may be done with it."
    )


def _options(record: Mapping[str, Any]) -> Mapping[str, Any]:
    options = record.get("options")
    return options if isinstance(options, Mapping) else {}


def _datasets(record: Mapping[str, Any]) -> list[str]:
    """Return the names of the data: those of a hub as they are, of files and folders the last part."""
    given, hub = _options(record).get("dataset"), record.get("hub")
    known = hub.get("datasets") if isinstance(hub, Mapping) else None
    published = known if isinstance(known, list) else []
    paths = [path for path in (given if isinstance(given, list) else [given]) if isinstance(path, str) and path]
    names = [(path.partition(":")[0], path) for path in paths]
    return [name if name in published else _last_part(path) for name, path in names]


def _last_part(path: str) -> str:
    """Return the last part of a path of any system, which may be another's: ``.`` is where the command ran."""
    if path in (".", "./", ".."):
        return Path(path).resolve().name
    parts = [part for part in re.split(r"[\\/]", path) if part]
    return parts[-1] if parts else path


def _code(text: str) -> str:
    """Return a text as Markdown shows it letter by letter, on one line, whatever it holds."""
    shown = printable(text, 200)
    fence = "`" * (max((len(run) for run in re.findall(r"`+", shown)), default=0) + 1)
    pad = " " if "`" in shown or not shown.strip() else ""
    return f"{fence}{pad}{shown}{pad}{fence}"
