"""How a network is given its keys and values."""

from __future__ import annotations

import inspect
from typing import Any

from transformers import DynamicCache


def with_cache(network: Any, cache: DynamicCache) -> dict[str, Any]:
    """Return the arguments that call a network, perhaps wrapped by an adapter, with a cache that it fills.

    transformers 5.24 renamed the argument, one architecture after the other; each tells its own name for it.
    """
    inner = getattr(network, "get_base_model", None)
    known = inspect.signature((inner() if inner else network).forward).parameters
    return {"cache" if "cache" in known else "past_key_values": cache, "use_cache": True}
