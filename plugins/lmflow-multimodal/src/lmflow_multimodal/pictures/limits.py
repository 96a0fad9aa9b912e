"""How large a picture may be, and where it may come from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PictureLimits:
    """What :func:`open_picture` takes.

    Attributes:
        max_pixels: width times height, as the file's header tells; a larger picture is not decoded.
        max_bytes: of the file, of what an address holds, or of what a server sends.
        fetch: whether http and https addresses are fetched.
        private: whether an address may lie within a private network, which other people's data should not reach.
        timeout: seconds that a server may be silent.
        deadline: seconds that fetching one picture may take in all.
        redirects: how often a server may point elsewhere.
    """

    max_pixels: int = 64_000_000
    max_bytes: int = 64 * 2**20
    fetch: bool = False
    private: bool = False
    timeout: float = 10.0
    deadline: float = 60.0
    redirects: int = 3
