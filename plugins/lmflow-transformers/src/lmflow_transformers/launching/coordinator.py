"""The coordinator of a job, a thread on its first machine: it starts the job on all machines, watches them, and decides
what follows when one of them, or a process of one, is lost."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from lmflow_transformers.launching.causes import Cause, cause_of, first_cause
from lmflow_transformers.launching.job import GRACE, Job, whole_checkpoints
from lmflow_transformers.launching.messages import Channel, Message, readable
from lmflow_transformers.launching.ranks import told_ranks

_PATIENCE = 2.0


@dataclass
class _Member:
    """The launcher of a machine, which has joined."""

    channel: Channel
    node: int
    name: str
    count: int
    first: int = 0
    ended: bool = False


class Coordinator(threading.Thread):
    """Serves the launchers of a job until it has ended."""

    def __init__(self, job: Job, listener: socket.socket) -> None:
        super().__init__(daemon=True, name="coordinator")
        self._job = job
        self._listener = listener
        self._members: dict[int, _Member] = {}
        self._waiting: list[tuple[Channel, Message, float]] = []
        self._channels: list[Channel] = []
        self._causes: list[Cause] = []
        self._restarts = 0
        self._earlier = whole_checkpoints(job.checkpoints)
        self._refusal = ""

    def run(self) -> None:
        """Serve; whatever goes wrong, the launchers are told that the job is over."""
        try:
            self._finish(self._end())
        except Exception as error:
            self._finish(Cause("told", f"the coordinator of the job failed: {type(error).__name__}: {error}"))
        finally:
            self._listener.close()

    def _end(self) -> Cause | None:
        """Run the job, as often as it may start, and return what ended it; None when it ended well."""
        while True:
            if problem := self._gather():
                return problem
            self._start()
            self._watch()
            if not self._causes:
                return None
            self._halt()
            cause = first_cause(self._causes)
            if not cause.passes or self._restarts >= self._job.max_restarts:
                return cause
            self._restarts += 1
            self._tell(f"{cause.text}; {self._next()}", cause.detail)

    def _next(self) -> str:
        count = f"starting again ({self._restarts} of {self._job.max_restarts} restarts)"
        return f"{count}, {'from the last checkpoint' if self._resumes() else 'anew, as there is no checkpoint yet'}"

    def _resumes(self) -> bool:
        """Whether a restart finds a checkpoint of this job."""
        return self._job.resumes or bool(whole_checkpoints(self._job.checkpoints) - self._earlier)

    # -- machines that come and go ---------------------------------------------------------------------------------

    def _gather(self) -> Cause | None:
        """Wait until all machines are there; return what keeps them from it."""
        now = time.monotonic()
        end, telling = now + self._job.join_timeout, now + _PATIENCE
        while len(self._members) < len(self._job.hosts) or self._refusal:
            self._pump()
            if self._refusal and 0 in self._members:  # the others must not be told before this machine is
                return Cause("told", self._refusal, 2)
            missing = [host.name for n, host in enumerate(self._job.hosts) if n not in self._members]
            if missing and time.monotonic() > telling:
                telling = end
                self._tell(f"waiting for {_named(missing)}, up to {self._job.join_timeout:g} s")
            if missing and time.monotonic() > end:
                return Cause(
                    "told",
                    f"{_named(missing)} did not come within {self._job.join_timeout:g} s: start the same command "
                    "there, and see whether it reaches this machine; --join-timeout says how long to wait",
                )
        return None

    def _pump(self) -> None:
        """Take in what comes within a tenth of a second, and send signs of life."""
        sockets = {channel.socket: channel for channel in self._channels if not channel.closed}
        ready = readable([self._listener, *sockets], 0.1)
        if self._listener in ready:
            with contextlib.suppress(OSError):
                self._channels.append(Channel(self._listener.accept()[0]))
        for channel in [sockets[one] for one in ready if one in sockets]:
            for message in channel.received():
                self._take(channel, message)
        for member in list(self._members.values()):
            member.channel.beat(self._job.beat)
            self._look_after(member)
        self._admit()
        self._channels = [channel for channel in self._channels if not channel.closed]

    def _take(self, channel: Channel, message: Message) -> None:
        if message.get("kind") == "join":
            self._waiting.append((channel, message, time.monotonic()))
        for member in self._members.values():
            if member.channel is channel and message.get("kind") == "ended" and not member.ended:
                member.ended = True
                self._causes += [cause_of(cause) for cause in message["causes"]]

    def _look_after(self, member: _Member) -> None:
        """Notice when a machine is lost."""
        silent = member.channel.silent(self._job.host_timeout)
        if not (silent or member.channel.closed):
            return
        how = f"nothing was heard from it for {self._job.host_timeout:g} s" if silent else "its connection was closed"
        ranks = told_ranks(member.first, member.count, sum(self._counts()))
        text = f"lost host {member.name} ({ranks}): {how}"
        self._causes.append(Cause("lost", text, 1, member.first))
        member.channel.close()
        del self._members[member.node]

    def _admit(self) -> None:
        """Let machines in whose place is free; one that stands in for a lost machine waits until that is noticed."""
        waiting, self._waiting = self._waiting, []
        for channel, message, since in waiting:
            node, name = int(message["node"]), str(message["name"])
            there = self._members.get(node)
            if message["digest"] != self._job.digest() or not 0 <= node < len(self._job.hosts):
                self._refusal = f"host {name} has another --hostfile or --nnodes than the first: make them alike"
            elif there is None:
                channel.heard = time.monotonic()
                self._members[node] = _Member(channel, node, name, int(message["count"]))
                # The first machine itself may have been lost, and its count with it.
                if int(message["starts"]) > self._restarts:
                    self._restarts, self._earlier = int(message["starts"]), set()
            elif there.channel.heard > since + _PATIENCE:
                text = f"host {there.name} has joined as number {node} of the job already: give each its --node-rank"
                channel.send("finish", text=text, status=2, detail="")
            elif not channel.closed:
                channel.beat(self._job.beat)
                self._waiting.append((channel, message, since))

    # -- one start of the job --------------------------------------------------------------------------------------

    def _counts(self) -> list[int]:
        slots = (host.slots for host in self._job.hosts)
        return [self._members[node].count if node in self._members else count or 0 for node, count in enumerate(slots)]

    def _start(self) -> None:
        """Start the processes of all machines."""
        self._causes = []
        counts, port = self._counts(), _free_port()
        resume = self._restarts > 0 and self._resumes()
        own = next(self._remote_addresses(), None)
        for node, member in sorted(self._members.items()):
            member.first, member.ended = sum(counts[:node]), False
            share = {"first": member.first, "size": sum(counts), "port": port, "address": None if node else own}
            member.channel.send("start", restart=self._restarts, resume=resume, **share)

    def _remote_addresses(self) -> Iterator[str]:
        """Yield this machine's addresses, as the others reach it."""
        for node, member in self._members.items():
            if node and not member.channel.closed:
                yield member.channel.socket.getsockname()[0]

    def _watch(self) -> None:
        """Wait until all machines have ended well, or there is a cause to stop."""
        while not self._causes and not all(member.ended for member in self._members.values()):
            self._pump()

    def _halt(self) -> None:
        """Stop the processes of all machines, and hear why they ended."""
        # Where a machine is lost, what its peers have to say is known.
        grace = 0.0 if any(cause.kind == "lost" for cause in self._causes) else GRACE
        for member in self._members.values():
            if not member.ended:
                member.channel.send("stop", grace=grace)
        end = time.monotonic() + GRACE + self._job.host_timeout
        while time.monotonic() < end and not all(member.ended for member in self._members.values()):
            self._pump()

    def _tell(self, text: str, detail: str = "") -> None:
        for member in self._members.values():
            member.channel.send("tell", text=text, detail=detail)

    def _finish(self, cause: Cause | None) -> None:
        """Tell all launchers how the job ended."""
        told = cause or Cause("told", "", 0)
        channels = [channel for channel in self._channels if not channel.closed]
        for channel in channels:
            channel.send("finish", text=told.text, status=told.status, detail=told.detail)
        end = time.monotonic() + _PATIENCE
        for channel in channels:
            channel.part(max(end - time.monotonic(), 0.1))


def _named(names: list[str]) -> str:
    return f"host{'s' if len(names) > 1 else ''} {', '.join(names)}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        port: int = probe.getsockname()[1]
        return port
