"""What a GGUF file tells about a model: name, licence, base model, and the LMFlow run that made it."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import gguf

from lmflow_gguf.checkpoint import read_json

logging.getLogger("metadata").setLevel(logging.ERROR)

RUN_KEY = "lmflow.run"
# What of a run is worth telling to strangers. Paths of data and outputs are nobody's business.
_TOLD = ("objective", "tuner", "template", "seed", "epochs", "max_steps", "lr")


def write_metadata(writer: gguf.GGUFWriter, folder: Path, name: str) -> None:
    """Write the ``general.*`` keys, from the model card, the configuration and the folder's name, and the run."""
    total, shared, expert, count = writer.get_total_parameter_count()
    metadata = gguf.Metadata.load(None, folder, None, total)
    metadata.name = metadata.name or name
    if metadata.size_label is None and total > 0:
        metadata.size_label = gguf.size_label(total, shared, expert, count)
    record = read_json(folder / "run.json")
    options = record.get("options") or {}
    base = options.get("model")
    if base and not metadata.base_models:
        metadata.base_models = [{"name": Path(str(base)).name}]
    metadata.set_gguf_meta_model(writer)
    if options:
        writer.add_string(RUN_KEY, json.dumps(_told(record, options), ensure_ascii=False))


def _told(record: dict[str, Any], options: dict[str, Any]) -> dict[str, Any]:
    versions = record.get("versions") or {}
    told = {key: options[key] for key in _TOLD if options.get(key) is not None}
    return told | {
        "lmflow": versions.get("lmflow_core"),
        "plugin_digest": versions.get("plugin_digest"),
        "steps": record.get("steps"),
        "finished": record.get("finished"),
    }
