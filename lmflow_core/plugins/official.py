"""The names of the official plugins, installed or not: only these are ever suggested for installation."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.resources
import json
from collections.abc import Mapping

# Distributions that strangers publish: nobody may be sent there, and no plugin may be called so.
TAKEN_BY_STRANGERS = frozenset(
    f"lmflow-{name}"
    for name in (
        *("benchmark", "deploy", "diffusion", "eval", "evaluate", "evaluator", "finetune", "finetuner"),
        *("inference", "inferencer", "pretrain", "pretrainer", "vision"),
    )
) | {"lmflow"}


@functools.cache
def official_names() -> Mapping[str, Mapping[str, str]]:
    """Return ``{kind: {name: distribution}}`` of every official plugin, installed or not."""
    text = importlib.resources.files("lmflow_core").joinpath("_official.json").read_text(encoding="utf-8")
    names: dict[str, dict[str, str]] = json.loads(text)
    return names


def official_distributions() -> frozenset[str]:
    """Return the name of every official distribution."""
    return frozenset(name for names in official_names().values() for name in names.values())
