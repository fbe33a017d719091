"""The pictures a controller sends, for as long as somebody wants them: through lost connections, too."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from escra_common.errors import WireError
from escra_common.framing import Decoder, encode
from escra_controller.client import (
    MAX_REPLY_BYTES,
    MAX_REQUEST_BYTES,
    Address,
    QueryError,
    data_of,
    explained,
)

RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class Lost:
    """There is no connection, and another is tried."""

    reason: str


Heard = dict[str, Any] | Lost


class Subscription:
    """``timeout`` seconds beyond the interval without a word, and the connection counts as lost."""

    def __init__(self, path: Address, interval_s: float, timeout: float) -> None:
        self._path = path
        self._interval_s = interval_s
        self._timeout = timeout
        self._explaining: tuple[str, str] | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def heard(self) -> AsyncGenerator[Heard, None]:
        """Pictures, what is said about ``explain``, and a Lost for each try in vain.

        Raises QueryError when already the first try is in vain.
        """
        reached = False
        while True:
            try:
                async with contextlib.aclosing(self._connected()) as replies:
                    async for reply in replies:
                        reached = True
                        yield reply
            except QueryError as error:
                if not reached:
                    raise
                yield Lost(str(error))
            await asyncio.sleep(RETRY_S)

    def explain(self, container: tuple[str, str] | None) -> None:
        """From now on also what is decided about this (id, host), or nothing more."""
        if container != self._explaining:
            self._explaining = container
            if self._writer is not None:
                self._writer.write(self._request())

    def _request(self) -> bytes:
        request: dict[str, Any] = {"op": "watch", "interval_s": self._interval_s}
        if self._explaining is not None:
            request["explain"], request["host"] = self._explaining
        return encode(request, MAX_REQUEST_BYTES)

    async def _connected(self) -> AsyncGenerator[dict[str, Any], None]:
        patience_s = self._interval_s + self._timeout
        decoder = Decoder(MAX_REPLY_BYTES)
        try:
            reader, writer = await asyncio.open_unix_connection(self._path)
            try:
                self._writer = writer
                writer.write(self._request())
                while True:
                    async with asyncio.timeout(patience_s):
                        data = await reader.read(1 << 18)
                    if not data:
                        raise QueryError(f"the controller at {self._path} closed the connection")
                    for reply in decoder.feed(data):
                        yield data_of(self._path, reply)
            finally:
                self._writer = None
                writer.close()
        except OSError as error:
            raise explained(self._path, patience_s, error) from error
        except WireError as error:
            raise QueryError(f"cannot use what {self._path} sends: {error}") from error
