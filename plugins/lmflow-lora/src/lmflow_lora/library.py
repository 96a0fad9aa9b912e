"""peft, imported where bitsandbytes is already quiet: it imports that, whose advice is not meant for our users."""

from __future__ import annotations

import logging

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

import peft  # noqa: E402

__all__ = ["peft"]
