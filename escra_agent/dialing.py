"""Finding the controller that leads, among those that are listed."""

import asyncio
import random
import socket
import time
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from escra_agent.standing import Standing
from escra_common.channel import Channel
from escra_common.configfile import Address, Addresses
from escra_common.errors import WireError
from escra_common.messages import Hello
from escra_common.session import Session
from escra_common.tls import Credentials, reason

# From the first packet to the end of the TLS handshake ...
CONNECT_S = 3.0
# ... of which the network gets so much for each address: one packet may be lost, and after a partition a new
# try finds the way sooner than an old one, whose third packet leaves two seconds after its second.
REACH_S = 1.5
# While the last leader cannot be reached, it is tried again and again; the others are asked only so often.
ROUND_S = 5.0
# So often the other controllers are asked whether one of them leads by now; they also learn of this host.
VISIT_EVERY_S = 60.0
# One that could not be reached yet does not know of this host, which it must before it leads.
UNMET_EVERY_S = 2.0


@dataclass(frozen=True, slots=True)
class Found:
    """What a visit to a controller showed: its HELLO, or why there was none."""

    address: Address
    controller: Hello | None
    reason: str = ""
    reached: bool = True


class Unreachable(WireError):
    """Nobody answers there, so that trying again costs nobody anything."""


class TakenOver(WireError):
    """Another controller leads by now; ``Dialer.leader`` knows which."""


class Dialer:
    def __init__(
        self,
        addresses: Addresses,
        greeting: Hello,
        standing: Standing,
        credentials: Credentials | None = None,
    ) -> None:
        self._addresses = addresses
        self._credentials = credentials
        self._greeting = greeting
        self._standing = standing
        self._last: Address | None = None
        self._asked_at = float("-inf")
        self._reached: set[Address] = set()
        self._met: set[Address] = set()

    @property
    def uses_tls(self) -> bool:
        return self._credentials is not None

    @property
    def unmet(self) -> bool:
        """Whether one of several controllers has not heard of this host since the agent began."""
        return len(self._addresses) > 1 and not self._met.issuperset(self._addresses)

    async def leader(self) -> Address:
        """Raises WireError, saying of each why it is not the one.

        All of them hear of this host before one of them can give it anything: a standby that takes over
        one day must know whom to wait for.
        """
        if len(self._addresses) == 1:
            return self._addresses[0]
        now = time.monotonic()
        if self._last is not None and now - self._asked_at < ROUND_S:
            return self._last
        self._asked_at = now
        found = await self._visit(self._addresses)
        leaders = [f for f in found if f.controller and not self._standing.objection(f.controller)]
        if not leaders:
            # The next try costs nobody anything: it goes to the last leader, who is not there.
            hopeful = not any(f.reached for f in found if self._last in (None, f.address))
            kind = Unreachable if hopeful else WireError
            raise kind("; ".join(f"{f.address}: {self._why_not(f)}" for f in found))
        self._last = max(leaders, key=_epoch).address
        return self._last

    async def look_around(self, present: Address) -> None:
        """For as long as ``present`` is served; raises TakenOver when another one leads by now."""
        others = [address for address in self._addresses if address != present]
        all_at = time.monotonic() + _about(VISIT_EVERY_S)
        while others:
            unmet = [address for address in others if address not in self._reached]
            pause = max(0.0, all_at - time.monotonic())
            await asyncio.sleep(min(pause, _about(UNMET_EVERY_S)) if unmet else pause)
            if time.monotonic() >= all_at:
                unmet, all_at = others, time.monotonic() + _about(VISIT_EVERY_S)
            for found in await self._visit(unmet):
                newer = _epoch(found) > self._standing.epoch
                if newer and found.controller and not self._standing.objection(found.controller):
                    self._last, self._asked_at = found.address, time.monotonic()
                    raise TakenOver(f"{found.controller.host} at {found.address} has taken over")

    async def connect(self, address: Address, *, visiting: bool = False) -> Channel:
        """Raises WireError when nobody is there."""
        standing = self._standing
        greeting = msgspec.structs.replace(
            self._greeting,
            epoch=standing.epoch,
            leader=standing.leader,
            visiting=visiting,
            hosts=standing.hosts,
            hosts_epoch=standing.hosts_epoch,
            unmet=self.unmet,
            several=len(self._addresses) > 1,
        )
        tls = self._credentials.context if self._credentials is not None else None
        try:
            async with asyncio.timeout(CONNECT_S):
                connection = await _reach(address)
                # Also checks that the certificate is for this name or address, and for a server.
                reader, writer = await asyncio.open_connection(
                    sock=connection, ssl=tls, server_hostname=address.host if tls else None
                )
        except TimeoutError:
            raise WireError(f"{address}: no answer within {CONNECT_S:.0f} s") from None
        except OSError as error:
            raise WireError(f"{address}: {reason(error)}") from error
        if not visiting:
            self._asked_at = float("-inf")  # when this one is lost, another may lead already
        return Channel(reader, writer, Session(greeting, time.monotonic()))

    async def _visit(self, addresses: Iterable[Address]) -> list[Found]:
        found = list(await asyncio.gather(*(self._visit_one(address) for address in addresses)))
        self._reached.update(each.address for each in found if each.reached)
        self._met.update(each.address for each in found if each.controller)
        return found

    async def _visit_one(self, address: Address) -> Found:
        channel = None
        try:
            channel = await self.connect(address, visiting=True)
            async with asyncio.timeout(CONNECT_S):
                async for message in channel.messages():
                    if isinstance(message, Hello):
                        return Found(address, message)
            return Found(address, None, "it closed the connection")
        except Unreachable as error:
            return Found(address, None, str(error), reached=False)
        except WireError as error:
            return Found(address, None, str(error))
        except TimeoutError:
            return Found(address, None, f"no answer within {CONNECT_S:.0f} s")
        finally:
            if channel is not None:
                channel.close()

    def _why_not(self, found: Found) -> str:
        return self._standing.objection(found.controller) if found.controller else found.reason


async def _reach(address: Address) -> socket.socket:
    """A connection to the first of its addresses that answers; raises Unreachable."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Unreachable(f"{address}: {reason(error)}") from error
    why = ""
    for family, kind, protocol, _, place in found:
        connection = socket.socket(family, kind, protocol)
        connection.setblocking(False)
        try:
            async with asyncio.timeout(REACH_S):
                await loop.sock_connect(connection, place)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return connection
        except TimeoutError:
            why = why or f"no answer within {REACH_S:g} s"
        except OSError as error:
            why = why or reason(error)
        except asyncio.CancelledError:
            connection.close()
            raise
        connection.close()
    raise Unreachable(f"{address}: {why}")


def _about(seconds: float) -> float:
    """Not all agents at the same moment."""
    return seconds * random.uniform(0.8, 1.2)


def _epoch(found: Found) -> int:
    return found.controller.epoch if found.controller else -1
