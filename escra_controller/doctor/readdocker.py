"""Asks a Docker Engine what it is."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiodocker
import aiohttp

from escra_controller.doctor.facts import Docker

DOCKER_S = 3.0


def read_docker(socket: str) -> Docker:
    if not Path(socket).exists():
        return Docker(socket, "there is no such socket")
    return asyncio.run(_ask_docker(socket))


async def _ask_docker(socket: str) -> Docker:
    try:
        async with aiodocker.Docker(url=f"unix://{socket}") as docker, asyncio.timeout(DOCKER_S):
            info: Mapping[str, Any] = await docker.system.info()
    except TimeoutError:
        return Docker(socket, f"none within {DOCKER_S:g} s")
    except (aiodocker.DockerError, aiohttp.ClientError, OSError, ValueError) as error:
        return Docker(socket, str(error) or type(error).__name__)
    return Docker(
        socket,
        version=str(info.get("ServerVersion", "?")),
        driver=str(info.get("CgroupDriver", "?")),
        rootless=any("rootless" in str(option) for option in info.get("SecurityOptions") or ()),
    )
