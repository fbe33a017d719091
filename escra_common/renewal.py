"""Certificates while a daemon runs: renewed files are taken, ends are announced."""

import asyncio
import time
from collections.abc import Callable, Iterable

import structlog

from escra_common.errors import ConfigError
from escra_common.expiry import Expiry, Reminders
from escra_common.tls import Credentials

# Two looks that agree are needed, so new files are in use within a minute.
LOOK_S = 20.0
LOOKS_PER_REMINDER = 180

log = structlog.get_logger()


class Renewal:
    """``peers`` gives the certificates of those connected at the moment.  Idle without TLS."""

    def __init__(self, credentials: Credentials | None, peers: Callable[[], Iterable[Expiry]]) -> None:
        self._credentials = credentials
        self._peers = peers
        self._reminders = Reminders()
        self._refused = ""

    def problems(self, wall: float) -> list[str]:
        """What people should hear about certificates at the unix time ``wall``."""
        problems = [problem for expiry in self.expiries() if (problem := expiry.problem(wall))]
        return [f"renewed certificate refused: {self._refused}"] * bool(self._refused) + problems

    def renew(self) -> None:
        """Take the files as they are; what does not work is logged once, and changes nothing."""
        if self._credentials is None:
            return
        try:
            renewed = self._credentials.refresh()
        except ConfigError as error:
            if str(error) != self._refused:
                log.error(
                    "renewed certificate refused, the running one stays",
                    kind="certificate_refused",
                    reason=str(error),
                )
            self._refused = str(error)
            return
        self._refused = ""
        if renewed:
            log.info("certificate renewed", kind="certificate_renewed")

    async def run(self) -> None:
        """Look at the files and the calendar, until cancelled."""
        if self._credentials is None:
            return
        looks = 0
        while True:
            if looks % LOOKS_PER_REMINDER == 0:
                self.remind(time.monotonic(), time.time())
            looks += 1
            await asyncio.sleep(LOOK_S)
            if self._credentials.changed():
                self.renew()

    def remind(self, now: float, wall: float) -> None:
        """Log what ends soon, each once a day."""
        for problem in self._reminders.due(self.expiries(), now, wall):
            log.warning("certificate ends", kind="certificate_ends", reason=problem)

    def expiries(self) -> list[Expiry]:
        """Of the own certificate, its CAs, and those of the peers."""
        own = self._credentials.expiries if self._credentials is not None else []
        return [*own, *self._peers()]
