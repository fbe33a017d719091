"""What becomes of marks that the kernel refuses."""

import asyncio
import errno
import os
import select

import pytest

from escra_agent import memorymarks
from escra_agent.memorymarks import Marks

MIB = 1 << 20


@pytest.fixture
def marked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The directories that were marked; what one is named after is the error that it gives."""
    asked: list[str] = []

    def set_mark(directory: str, at_bytes: int) -> int:
        asked.append(directory)
        if directory != "fine":
            raise OSError(getattr(errno, directory), directory)
        return os.eventfd(0)

    monkeypatch.setattr(memorymarks, "set_mark", set_mark)
    return asked


async def see_to(*directories: str) -> None:
    with select.epoll() as epoll:
        marks = Marks(epoll, {})
        for key, directory in enumerate(directories):
            marks.see_to(key, directory, 8 * MIB, 64 * MIB)
            await asyncio.sleep(0.02)
        marks.close()


@pytest.mark.parametrize("ended", ["ENOENT", "ENODEV", "EMFILE"])
def test_one_that_cannot_be_marked_now_does_not_stop_the_others(marked: list[str], ended: str) -> None:
    asyncio.run(see_to(ended, "fine"))
    assert marked == [ended, "fine"]


@pytest.mark.parametrize("never", ["EINVAL", "EOPNOTSUPP", "EACCES"])
def test_a_kernel_without_marks_is_not_asked_again(marked: list[str], never: str) -> None:
    asyncio.run(see_to(never, "fine"))
    assert marked == [never]
