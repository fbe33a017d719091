"""What can go wrong with a cgroup, as types made from errno in one place."""

import errno
from types import TracebackType

from escra_common.errors import EscraError


class CgroupGone(EscraError):
    """The cgroup no longer exists: a value to act on, never a reason to stop."""


class CgroupDenied(EscraError):
    """The kernel does not let this process read or write the file."""


class CgroupUnusable(EscraError):
    """The cgroup is there but not for Escra: the root, a path outside, no cpu controller, strange files."""


class LimitRejected(EscraError):
    """The kernel refused a limit; the one before it is still in force."""


# Measured: a kept descriptor of a removed cgroup answers ENODEV, opening in its directory
# ENOENT, /proc/PID of a process that ended ESRCH.
_GONE = frozenset({errno.ENODEV, errno.ENOENT, errno.ESRCH})
_DENIED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_REJECTED = frozenset({errno.EINVAL, errno.ERANGE, errno.EBUSY})
# A path to a file, and one that no cgroup can have.
_NO_CGROUP = frozenset({errno.ENOTDIR, errno.ENAMETOOLONG})

_WHY_DENIED = "run as root, or with CAP_DAC_OVERRIDE and a writable cgroup file system"
# K1, K8, K9: the kernel gives one errno for all of these.
_WHY_REJECTED = (
    "a quota is at least 1 ms and not below the burst, and on cgroup v1 no limit may be above its "
    "parent's or below a child's"
)
WHY_MEMORY_REJECTED = "more is in use than that, and what is in use cannot be taken back"


class kernel_errors:
    """Turns the OSErrors of its block into the errors above; others (EMFILE, EIO) pass as they are.

    A file that does not say what the kernel says there (a kernel of the future, something mounted over it)
    makes its cgroup unusable, and only that one.

    ``doing`` completes "cannot ..." for people: ``read cpu.stat of /docker/web``, and ``why_rejected`` says
    what the kernel may have against a limit.  The object keeps no state, so the fast path enters
    one instance again and again.
    """

    __slots__ = ("_doing", "_why_rejected")

    def __init__(self, doing: str, why_rejected: str = _WHY_REJECTED) -> None:
        self._doing = doing
        self._why_rejected = why_rejected

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, OSError):
            said = f"cannot {self._doing}: {error.strerror}"
            if error.errno in _GONE:
                raise CgroupGone(said) from error
            if error.errno in _DENIED:
                raise CgroupDenied(f"{said}; {_WHY_DENIED}") from error
            if error.errno in _REJECTED:
                raise LimitRejected(f"{said}; {self._why_rejected}") from error
            if error.errno in _NO_CGROUP:
                raise CgroupUnusable(said) from error
        elif isinstance(error, ValueError | LookupError):
            raise CgroupUnusable(
                f"cannot {self._doing}: its files say what no kernel is known to say"
            ) from error
