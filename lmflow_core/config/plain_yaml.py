"""YAML without what a run file has no use for: aliases, by which a few lines grow without bound, tags, doubled keys."""

from __future__ import annotations

from typing import Any

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError


class PlainLoader(yaml.SafeLoader):
    """The safe loader, which refuses aliases, tags that the file sets itself, and a key that is there twice."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose a node.

        Raises:
            ComposerError: it is an alias or has a tag.
        """
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        mark: Any = event.start_mark
        if isinstance(event, yaml.AliasEvent):
            raise ComposerError(None, None, "aliases are not taken: write the value out", mark)
        if getattr(event, "tag", None) is not None:
            raise ComposerError(None, None, f"the tag {event.tag!r} is not taken", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Make a mapping.

        Raises:
            ConstructorError: a key is there twice.
        """
        seen: set[tuple[str, Any]] = set()
        for key, _ in node.value:
            written = (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else None
            if written in seen and written is not None:
                raise ConstructorError(None, None, f"{key.value!r} is there twice", key.start_mark)
            seen |= {written} if written is not None else set()
        return super().construct_mapping(node, deep)
