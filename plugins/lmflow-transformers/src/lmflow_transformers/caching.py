"""How a network is called in decoding."""

from __future__ import annotations

import inspect
from typing import Any

from transformers import DynamicCache

from lmflow_transformers.linear import keep_copies


def for_decoding(network: Any, cache: DynamicCache) -> dict[str, Any]:
    """Set a network, perhaps wrapped by an adapter, up for decoding; return the arguments that give it a cache to fill.

    transformers 5.24 renamed the argument, one architecture after the other; each tells its own name for it.
    """
    keep_copies(network)
    inner = getattr(network, "get_base_model", None)
    known = inspect.signature((inner() if inner else network).forward).parameters
    return {"cache" if "cache" in known else "past_key_values": cache, "use_cache": True}
