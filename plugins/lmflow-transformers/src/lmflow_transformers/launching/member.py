"""The launcher of one machine: it joins the coordinator, and runs this machine's processes as that says."""

from __future__ import annotations

import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from lmflow_core.api import LmflowError, RequestError
from lmflow_transformers.launching.coordinator import Coordinator
from lmflow_transformers.launching.hosts import interface_of
from lmflow_transformers.launching.job import GRACE, Job
from lmflow_transformers.launching.messages import Channel, Message
from lmflow_transformers.launching.ranks import LocalRanks, Share

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Member:
    """Runs a machine's share of a job to the end."""

    def __init__(self, job: Job, ranks: LocalRanks) -> None:
        self._job = job
        self._ranks = ranks
        self._coordinator: Coordinator | None = None
        self._starts = 0
        self._reports = False
        self._signals = 0

    @property
    def _first(self) -> str:
        return self._job.hosts[0].name

    def run(self) -> int:
        """Run, and return the exit status of the program.

        Raises:
            LmflowError: the first machine is not reached, or is lost for good.
            KeyboardInterrupt: the user ended it before there were processes.
        """
        with self._passing_signals_on():
            try:
                while True:
                    channel = self._joined()
                    status = self._served(channel)
                    if status is not None:
                        return status
            finally:
                self._ranks.stop(0, lambda: None)

    @contextmanager
    def _passing_signals_on(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._on_signal) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: object) -> None:
        """Pass a signal on; processes that still run at the third are ended by force."""
        self._signals += 1
        if not self._ranks.running or self._signals > 2:
            raise KeyboardInterrupt
        self._ranks.pass_on(number)

    # -- meeting ---------------------------------------------------------------------------------------------------

    def _joined(self) -> Channel:
        """Return a connection with the coordinator, which the first machine starts.

        Raises:
            RequestError: the port is in use.
            LmflowError: the first machine is not reached in time.
        """
        channel = Channel(self._connected_here() if self._job.node == 0 else self._connected())
        host = self._job.hosts[self._job.node]
        place = {"node": self._job.node, "name": host.name, "count": self._job.count}
        channel.send("join", digest=self._job.digest(), starts=self._starts, **place)
        return channel

    def _connected_here(self) -> socket.socket:
        place = ("" if self._job.several else "127.0.0.1", self._job.port)
        try:
            listener = socket.create_server(place)
        except OSError as error:
            raise RequestError(
                f"port {self._job.port} of this machine cannot be used for the machines to meet ({error.strerror}): "
                "give another one on all of them, as in --master-port 29511"
            ) from error
        self._coordinator = Coordinator(self._job, listener)
        self._coordinator.start()
        return socket.create_connection(("127.0.0.1", listener.getsockname()[1]))

    def _connected(self) -> socket.socket:
        place = (self._job.address, self._job.port)
        end, telling = time.monotonic() + self._job.join_timeout, time.monotonic() + 2
        while True:
            try:
                return socket.create_connection(place, timeout=2)
            except OSError as error:
                reason = error.strerror or str(error)
            if time.monotonic() > end:
                raise LmflowError(
                    f"host {self._first} did not answer at {place[0]}:{place[1]} within {self._job.join_timeout:g} s "
                    f"({reason}): start the same command there; --join-timeout says how long to wait"
                )
            if time.monotonic() > telling:
                telling = end + 1
                _tell(f"waiting for host {self._first} at {place[0]}:{place[1]}, up to {self._job.join_timeout:g} s")
            time.sleep(0.2)

    # -- running ---------------------------------------------------------------------------------------------------

    def _served(self, channel: Channel) -> int | None:
        """Do as the coordinator says; return the exit status, or None when the first machine is to come back."""
        while True:
            time.sleep(0.05)
            for message in channel.received():
                if message.get("kind") == "finish":
                    return self._finished(channel, message)
                self._obey(channel, message)
            if channel.closed or channel.silent(self._job.host_timeout):
                self._lose_first(channel)
                return None
            channel.beat(self._job.beat)
            if self._reports and (self._ranks.failed or not self._ranks.running):
                self._report(channel)

    def _obey(self, channel: Channel, message: Message) -> None:
        kind = message.get("kind")
        if kind == "start":
            self._start(channel, message)
        elif kind == "stop" and self._reports:
            self._report(channel, float(message["grace"]))
        elif kind == "tell":
            _tell(str(message["text"]), str(message["detail"]))

    def _start(self, channel: Channel, message: Message) -> None:
        job = self._job
        own = message["address"] or channel.socket.getsockname()[0]
        share = Share(
            first=message["first"],
            count=job.count,
            size=message["size"],
            node=job.node,
            host=job.hosts[job.node].name if job.several else "",
            address=channel.socket.getpeername()[0],
            port=message["port"],
            interface=interface_of(own) if job.several else None,
            restart=message["restart"],
            resume=message["resume"],
        )
        self._ranks.start(share)
        if share.first:
            _tell(f"{share.told} started; host {self._first} shows how the job goes on")
        self._starts, self._reports = message["restart"] + 1, True

    def _report(self, channel: Channel, grace: float = GRACE) -> None:
        """Stop what still runs, in some seconds, and tell how all ended."""
        self._ranks.stop(grace, lambda: channel.beat(self._job.beat))
        self._reports = False
        channel.heard = time.monotonic()  # nobody listened meanwhile
        channel.send("ended", causes=[cause.as_dict() for cause in self._ranks.causes()])

    def _finished(self, channel: Channel, message: Message) -> int:
        channel.close()
        if self._coordinator is not None:
            self._coordinator.join(timeout=5)  # the others are told, too
        status = int(message["status"])
        if message["text"] and status:
            word = "" if status not in (1, 2) else "error: "
            _tell(f"{word}{message['text']}", str(message["detail"]))
        return status

    def _lose_first(self, channel: Channel) -> None:
        """Stop, as the first machine is lost; without it nobody knows of the others.

        Raises:
            LmflowError: the job is not to be started again.
        """
        how = "its connection was closed" if channel.closed else f"nothing was heard for {self._job.host_timeout:g} s"
        channel.close()
        self._ranks.stop(0, lambda: None)
        self._reports = False
        text = f"lost host {self._first}, the first of the job: {how}"
        if self._starts > self._job.max_restarts:
            raise LmflowError(text)
        _tell(f"{text}; waiting for it to come back, up to {self._job.join_timeout:g} s")


def _tell(text: str, detail: str = "") -> None:
    if detail:
        print(detail, file=sys.stderr)
    print(f"lmflow: {text}", file=sys.stderr, flush=True)
