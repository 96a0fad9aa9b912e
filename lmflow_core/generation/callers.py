"""Who may ask for answers over a network: whether an address, or a page of a browser, is of this machine."""

from __future__ import annotations

from collections.abc import Iterable


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine only."""
    import ipaddress

    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def asks_this_machine(host: str, origins: Iterable[str]) -> bool:
    """Whether a request is meant for this machine and comes from none but its own pages.

    A page in the browser of this machine can send requests to a server on it. It cannot read the answers, unless its
    own name is made to lead here (DNS rebinding): then the name in ``Host`` tells. The browser names the page in
    ``Origin``.

    Args:
        host: the request's header of that name.
        origins: its headers ``Origin``.
    """
    return all(is_loopback(_hostname(address)) for address in (f"//{host}", *origins))


def _hostname(address: str) -> str:
    from urllib.parse import urlsplit

    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""
