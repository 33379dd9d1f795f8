"""Probe kind `nrpe`: asks an NRPE daemon on a check point to run its check of a node.

In process, because forking check_nrpe costs an order of magnitude more (benchmarks/nrpe_client.py).
"""

import asyncio
import ssl
import time
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum

from understudy.adapters.probes import nrpe_tls, plugin
from understudy.adapters.probes.nrpe_packet import (
    Decoder,
    Packet,
    Role,
    Version,
    encode,
)
from understudy.adapters.probes.nrpe_trouble import Asked, Closed, Stage, Tls, daemons_hint, explain
from understudy.adapters.probes.nrpe_wire import Wire, dialler
from understudy.config.settings import Host, InputFile, Port, Seconds, SecretFile, setting
from understudy.core.observations import Health, Report


class PacketVersion(StrEnum):
    AUTO = "auto"
    V2 = "2"
    V4 = "4"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Raises ValueError for values that contradict each other."""

    address: Host = setting(
        "The check point.  An address works without DNS, a name does not.", example="192.0.2.21"
    )
    port: Port = setting("TCP port of its NRPE daemon.", default=5666)
    tls: Tls = setting(
        'How the connection is protected: "anonymous" as NRPE comes (encrypted, nobody proved), '
        '"verified" by certificates, "off" for a daemon started with -n.',
        default=Tls.ANONYMOUS,
    )
    ca_file: InputFile | None = setting(
        'With tls = "verified": who signed the daemon\'s certificate (PEM).  '
        "Without: the CAs of this system.",
        default=None,
        example="/etc/understudy/nrpe-ca.pem",
    )
    cert_file: InputFile | None = setting(
        'With tls = "verified": our certificate (PEM), for a daemon that asks for one '
        "(ssl_client_certs).",
        default=None,
        example="/etc/understudy/nrpe.pem",
    )
    key_file: SecretFile | None = setting(
        "The key of cert_file (PEM, without a passphrase), if it is not in that file.",
        default=None,
        example="/etc/understudy/nrpe.key",
    )
    server_name: str = setting(
        "The name in the daemon's certificate.  Without: the address.",
        default="",
        example="cp1.example.com",
    )
    command: str = setting(
        "The command in nrpe.cfg there; {node} is replaced by the node's name.",
        default="check_{node}",
    )
    timeout: Seconds = setting(
        "How long one question may take, connecting and a second try included.",
        default=Seconds(10.0),
    )
    connections: int = setting(
        "How many questions may be under way at once, 1 to 4: nrpe queues 5 and drops more.",
        default=2,
    )
    packet: PacketVersion = setting(
        'NRPE packet version: "2" (every daemon), "4" (nrpe 4.x, answers beyond 1 KiB), '
        'or "auto": 2, and 4 where 2 is refused.',
        default=PacketVersion.AUTO,
    )

    def __post_init__(self) -> None:
        if "{node}" not in self.command:
            raise ValueError(
                f"command is {self.command!r}: both nodes would get one and the same answer.  "
                "Put {node} into it"
            )
        if not 1 <= self.connections <= 4:
            raise ValueError(f"connections is {self.connections}.  Use 1 to 4")
        if self.timeout <= 0:
            raise ValueError(f"timeout is {self.timeout:g} s.  Use more than 0 s")
        if self.tls is not Tls.VERIFIED and (
            self.ca_file or self.cert_file or self.key_file or self.server_name
        ):
            raise ValueError(
                f'ca_file, cert_file, key_file, server_name mean nothing with tls = "{self.tls}".  '
                'Set tls = "verified", or leave them out'
            )
        if self.key_file and not self.cert_file:
            raise ValueError("key_file is set without cert_file.  Set both, or neither")


class NrpeProbe:
    """Implements ports.Probe.  Belongs to the event loop that first asks."""

    def __init__(self, name: str, settings: Settings) -> None:
        self.name = name
        self._settings = settings
        self._slots = asyncio.Semaphore(settings.connections)
        self._tls: nrpe_tls.Client | None = None
        self._dial = dialler(settings.address, settings.port)
        self._works: Version | None = None  # The packet version that this daemon has answered.

    async def ask(self, node: str) -> Report:
        """OK and WARNING are UP, CRITICAL is DOWN; all else, and every failure to ask, UNKNOWN."""
        started = time.monotonic()
        progress = _Progress()
        try:
            async with asyncio.timeout(self._settings.timeout), self._slots:
                answer = await self._converse(
                    self._settings.command.replace("{node}", node), progress
                )
            health, text = _judge(answer)
        except (OSError, ValueError, Closed) as error:
            # ValueError: PacketError, and names that cannot be names.
            health, text = Health.UNKNOWN, explain(error, self._asked(progress.stage))
        return Report(self.name, health, text, time.monotonic() - started)

    async def _converse(self, command: str, progress: "_Progress") -> Packet:
        """Ask with each packet version that may work: a daemon refuses one by closing, wordless."""
        refused = Closed(0)
        for version in self._versions():
            question = encode(Packet(version=version, role=Role.QUESTION, text=command.encode()))
            try:
                answer = await self._exchange(question, progress)
            except Closed as error:
                if error.received or isinstance(error.__cause__, ssl.SSLError):
                    raise  # It did say something.
                refused = error
            else:
                self._works = version
                return answer
        raise refused

    def _versions(self) -> tuple[Version, ...]:
        match self._settings.packet:
            case PacketVersion.V2:
                return (Version.V2,)
            case PacketVersion.V4:
                return (Version.V4,)
            case PacketVersion.AUTO if self._works is Version.V4:
                return (Version.V4, Version.V2)
            case PacketVersion.AUTO:
                return (Version.V2, Version.V4)

    async def _exchange(self, question: bytes, progress: "_Progress") -> Packet:
        """One connection, one question, one answer.  Raises Closed, PacketError, OSError."""
        tls = self._secured()
        if tls is None:
            with closing(await self._connected(progress)) as wire:
                return await _say(question, wire, progress)
        wire, secured = await self._connected_by(tls, progress)
        with closing(wire):
            answer = await _say(question, secured, progress)
            tls.remember(secured)
            return answer

    def _secured(self) -> nrpe_tls.Client | None:
        """Made with the first question: a file of no use is then a report, and mending it enough."""
        chosen = self._settings
        if self._tls is not None or chosen.tls is Tls.OFF:
            return self._tls
        if chosen.tls is Tls.ANONYMOUS:
            self._tls = nrpe_tls.anonymous()
            return self._tls
        try:
            self._tls = nrpe_tls.verified(chosen.ca_file, chosen.cert_file, chosen.key_file)
        except OSError as error:
            raise ValueError(f"ca_file, cert_file or key_file is of no use: {error}") from error
        return self._tls

    async def _connected(self, progress: "_Progress") -> Wire:
        progress.stage = Stage.CONNECTING
        return await self._dial()

    async def _connected_by(
        self, tls: nrpe_tls.Client, progress: "_Progress"
    ) -> tuple[Wire, nrpe_tls.Secured]:
        resumes = tls.will_resume()
        wire = await self._connected(progress)
        progress.stage = Stage.SECURING
        name = self._settings.server_name or self._settings.address
        try:
            return wire, await tls.secure(wire, name)
        except BaseException as error:
            wire.close()
            if not resumes or not isinstance(error, ssl.SSLError | ConnectionResetError):
                raise
            if isinstance(error, ssl.SSLError):
                tls.never_resume()
            else:
                tls.forget()
        return await self._connected_by(tls, progress)

    def _asked(self, stage: Stage) -> Asked:
        chosen = self._settings
        host = f"[{chosen.address}]" if ":" in chosen.address else chosen.address
        return Asked(
            where=f"{host}:{chosen.port}",
            tls=chosen.tls,
            timeout=chosen.timeout,
            stage=stage,
        )


class _Progress:
    """How far the question is, for the sentence if it does not end well."""

    stage = Stage.QUEUED


async def _say(question: bytes, line: Wire | nrpe_tls.Secured, progress: _Progress) -> Packet:
    progress.stage = Stage.ASKED
    decoder = Decoder(Role.ANSWER)
    try:
        await line.send(question)
        while piece := await line.receive():
            packet = decoder.feed(piece)
            if packet:
                return packet
    except OSError as error:
        raise Closed(decoder.received) from error
    raise Closed(decoder.received)


def _judge(answer: Packet) -> tuple[Health, str]:
    text = plugin.sentence(answer.text.decode(errors="replace"))
    if not text:
        return Health.UNKNOWN, f"the check ended with {answer.code} and said nothing"
    return plugin.health(answer.code), text + daemons_hint(text)
