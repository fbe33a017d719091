"""Asks a Docker Engine what it is."""

import asyncio
from pathlib import Path

import msgspec

from escra_common.dockerhttp import NotHttp, get
from escra_controller.doctor.facts import Docker

DOCKER_S = 3.0


def read_docker(socket: str) -> Docker:
    if not Path(socket).exists():
        return Docker(socket, "there is no such socket")
    return asyncio.run(_ask_docker(socket))


async def _ask_docker(socket: str) -> Docker:
    try:
        async with asyncio.timeout(DOCKER_S):
            status, body = await get(socket, "/info")
        info = msgspec.json.decode(body, type=dict)
    except TimeoutError:
        return Docker(socket, f"none within {DOCKER_S:g} s")
    except (OSError, NotHttp, msgspec.DecodeError) as error:
        return Docker(socket, str(error) or type(error).__name__)
    if status != 200:
        return Docker(socket, str(info.get("message", f"status {status}")))
    return Docker(
        socket,
        version=str(info.get("ServerVersion", "?")),
        driver=str(info.get("CgroupDriver", "?")),
        rootless=any("rootless" in str(option) for option in info.get("SecurityOptions") or ()),
    )
