"""What to type where a distribution is missing: the one place that knows where LMFlow's own come from."""

from __future__ import annotations

import shlex

# Until they are on PyPI, LMFlow's own come from this repository: there the names are still anybody's to take.
PUBLISHED = False


def how_to_install(distribution: str, extra: str | None = None) -> str:
    """Return the words that end a message on a missing distribution.

    Args:
        distribution: a third party's, or a plugin's of this repository; any other ``lmflow-`` name may be a stranger's.
        extra: the name of a group of its optional dependencies.
    """
    ours = distribution.startswith("lmflow-")
    kind = "contrib" if distribution.startswith("lmflow-contrib-") else "plugins"
    place = f"./{kind}/{distribution}" if ours and not PUBLISHED else distribution
    command = f"pip install {shlex.quote(place + (f'[{extra}]' if extra else ''))}"
    return f"in a checkout of LMFlow, {command}" if ours and not PUBLISHED else command
