"""HTTP on the unix socket of a Docker Engine: one connection per question.

h11 speaks the protocol.  A whole HTTP framework would be a third of the agent's memory.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from urllib.parse import urlencode

import h11

_READ_BYTES = 1 << 16
# A list of 10,000 containers has some 10 MiB.  What is longer than this is no answer.
_MOST_BYTES = 64 << 20


class NotHttp(Exception):
    """What came back is no answer to an HTTP request, or not all of one."""


class Refused(Exception):
    """The answer is another than 200."""


async def get(socket: str, path: str, **query: str) -> tuple[int, bytes]:
    """The status and the body; raises OSError or NotHttp."""
    async with _answer(socket, path, query) as (status, chunks):
        body = bytearray()
        async for chunk in chunks:
            body += chunk
            if len(body) > _MOST_BYTES:
                raise NotHttp(f"an answer of more than {_MOST_BYTES} bytes")
        return status, bytes(body)


async def lines(socket: str, path: str, **query: str) -> AsyncGenerator[bytes, None]:
    """Each line of an endless answer as it comes; raises OSError, NotHttp or Refused."""
    async with _answer(socket, path, query) as (status, chunks):
        if status != 200:
            raise Refused(f"status {status}")
        rest = b""
        async for chunk in chunks:
            *complete, rest = (rest + chunk).split(b"\n")
            if len(rest) > _MOST_BYTES:
                raise NotHttp(f"a line of more than {_MOST_BYTES} bytes")
            for line in complete:
                if line.strip():
                    yield line


@contextlib.asynccontextmanager
async def _answer(
    socket: str, path: str, query: dict[str, str]
) -> AsyncGenerator[tuple[int, AsyncGenerator[bytes, None]], None]:
    reader, writer = await asyncio.open_unix_connection(socket)
    http = h11.Connection(h11.CLIENT)

    async def event() -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        try:
            while (found := http.next_event()) is h11.NEED_DATA:
                http.receive_data(await reader.read(_READ_BYTES))
        except h11.RemoteProtocolError as error:
            raise NotHttp(str(error)) from error
        return found

    async def chunks() -> AsyncGenerator[bytes, None]:
        while isinstance(found := await event(), h11.Data):
            yield bytes(found.data)

    try:
        target = f"{path}?{urlencode(query)}" if query else path
        asked = h11.Request(
            method="GET", target=target, headers=[("Host", "docker"), ("Connection", "close")]
        )
        writer.write((http.send(asked) or b"") + (http.send(h11.EndOfMessage()) or b""))
        head = await event()
        while isinstance(head, h11.InformationalResponse):
            head = await event()
        if not isinstance(head, h11.Response):
            raise NotHttp("the connection ended before the answer")
        async with contextlib.aclosing(chunks()) as body:
            yield head.status_code, body
    finally:
        writer.close()
