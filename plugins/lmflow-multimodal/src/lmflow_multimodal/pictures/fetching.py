"""Pictures from servers: bounded in bytes and time, and never from a place that other people's data should not reach.

A name is looked up once and the connection goes to the address that was judged, so that a name cannot mean one address
to the judge and another to the connection. The environment's proxies are not used.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from lmflow_multimodal.pictures.limits import PictureLimits

_MOVED = (301, 302, 303, 307, 308)
_CHUNK = 2**16
_PORTS = {"http": 80, "https": 443}


class _Place(NamedTuple):
    url: SplitResult
    host: str
    port: int


def fetched(address: str, limits: PictureLimits) -> bytes:
    """Return what a server has at an http or https address.

    Raises:
        ValueError: it has nothing there, is too slow, sends too much, or lies where nothing is fetched from.
    """
    place = _place(address)
    first = place.host
    for _ in range(limits.redirects + 1):
        try:
            with _asked(place, limits, private=limits.private and place.host == first) as response:
                if response.status not in _MOVED:
                    return _body(response, limits.max_bytes)
                place = _place(urljoin(place.url.geturl(), response.headers.get("Location", "")))
        except (OSError, http.client.HTTPException) as error:
            raise ValueError(f"cannot be fetched: {error or type(error).__name__}") from error
    raise ValueError(f"cannot be fetched: it was moved more than {limits.redirects} times")


def _place(address: str) -> _Place:
    try:
        url = urlsplit(address)
        host, port = url.hostname, url.port
    except ValueError as error:
        raise ValueError(f"cannot be fetched: the address is wrong ({error})") from error
    if url.scheme not in _PORTS:
        raise ValueError(f"cannot be fetched: it leads to an address of the kind {url.scheme}:")
    if not host or url.username is not None:
        raise ValueError("cannot be fetched: the address must have a host, and no name of a user")
    return _Place(url, host, port or _PORTS[url.scheme])


@contextmanager
def _asked(place: _Place, limits: PictureLimits, *, private: bool) -> Iterator[http.client.HTTPResponse]:
    """Ask for a picture and give the answer; the connection is cut when it takes too long in all."""
    connected = socket.create_connection((_judged(place, private), place.port), timeout=limits.timeout)
    late = threading.Event()
    clock = threading.Timer(limits.deadline, _cut, (connected, late))
    clock.daemon = True
    clock.start()
    try:
        if place.url.scheme == "https":
            connected = ssl.create_default_context().wrap_socket(connected, server_hostname=place.host)
        connection = http.client.HTTPConnection(place.host, place.port, timeout=limits.timeout)
        connection.sock = connected
        connection.putrequest("GET", _path(place.url), skip_host=True, skip_accept_encoding=True)
        for name, value in (("Host", place.url.netloc), ("User-Agent", "lmflow"), ("Accept-Encoding", "identity")):
            connection.putheader(name, value)
        connection.putheader("Connection", "close")
        connection.endheaders()
        yield connection.getresponse()
        if late.is_set():
            raise ConnectionError("cut")  # for a reader, a connection that is cut is one that has ended
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, ValueError) and not late.is_set():
            raise
        raise _in_words(error, late.is_set(), limits) from error
    finally:
        clock.cancel()
        connected.close()


def _in_words(error: Exception, late: bool, limits: PictureLimits) -> ValueError:
    if late:
        return ValueError(f"cannot be fetched: it takes more than {limits.deadline:g} seconds")
    if isinstance(error, TimeoutError):
        return ValueError(f"cannot be fetched: the server is silent for {limits.timeout:g} seconds")
    return ValueError(f"cannot be fetched: {error or type(error).__name__}")


def _cut(connected: socket.socket, late: threading.Event) -> None:
    late.set()
    try:
        connected.shutdown(socket.SHUT_RDWR)
    except OSError:  # it has ended in this moment
        return


def _path(url: SplitResult) -> str:
    # What is no ASCII, or would end the line, is written in percents; what was written so stays.
    path = quote(url.path or "/", safe="/%:@!$&'()*+,;=~-._")
    return f"{path}?{quote(url.query, safe='/%:@!$&()*+,;=~-._?')}" if url.query else path


def _judged(place: _Place, private: bool) -> str:
    """Return the address to connect to.

    Raises:
        ValueError: one of those of the host is not public, and a private one is not allowed.
    """
    found = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
    addresses = [str(entry[4][0]) for entry in found]
    for address in addresses:
        if not private and not _is_public(address):
            raise ValueError(f"is not fetched: {place.host} is within a private network")
    return addresses[0]


def _is_public(address: str) -> bool:
    number = ipaddress.ip_address(address.split("%")[0])
    if isinstance(number, ipaddress.IPv6Address):
        # Ways by which an IPv4 address is written as an IPv6 one, which a gateway takes back to it.
        inner = number.ipv4_mapped or number.sixtofour or (number.teredo or (None, None))[1]
        if number in _NAT64:
            inner = ipaddress.IPv4Address(int(number) & 0xFFFFFFFF)
        if inner is not None:
            return _is_public(str(inner))
    return number.is_global and not number.is_multicast


_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def _body(response: http.client.HTTPResponse, most: int) -> bytes:
    if response.status != 200:
        raise ValueError(f"cannot be fetched: the server answers {response.status} {response.reason}".rstrip())
    told = response.headers.get("Content-Length", "")
    if told.isdecimal() and int(told) > most:
        raise ValueError(f"has {int(told):,} bytes, more than the {most:,} that are read")
    content = bytearray()
    while chunk := response.read1(_CHUNK):
        content += chunk
        if len(content) > most:
            raise ValueError(f"has more than the {most:,} bytes that are read")
    if told.isdecimal() and len(content) < int(told):
        raise ValueError(f"cannot be fetched: the server sends {len(content):,} of {told} bytes")
    return bytes(content)
