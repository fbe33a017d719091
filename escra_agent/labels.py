"""What the labels of a container ask for."""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import get_args

from escra_common.errors import EscraError
from escra_common.messages import Mode
from escra_common.units import parse_bytes, parse_cpu

_PREFIX = "escra."
_MAX_WEIGHT = 10_000
_MAX_APP = 255
# No number that means anything is longer; it also keeps absurd ones away from the parsers.
_MAX_NUMBER = 32


class LabelError(EscraError):
    """The labels of one container cannot be used: which, its value, why."""


@dataclass(frozen=True, slots=True)
class Labels:
    """None is "not asked for": the application's defaults apply."""

    app: str
    mode: Mode = "auto"
    weight: int = 100
    cpu_min_milli: int | None = None
    cpu_max_milli: int | None = None
    memory_min_bytes: int | None = None
    memory_max_bytes: int | None = None


def parse_labels(labels: Mapping[str, str]) -> Labels:
    """Read all ``escra.*`` labels, ignore all others; raises LabelError and nothing else.

    >>> parse_labels({"escra.app": "shop", "escra.cpu.max": "1.5"}).cpu_max_milli
    1500
    """
    values: dict[str, object] = {}
    for label, text in sorted(labels.items()):
        if label.startswith(_PREFIX):
            field, parse = _known(label, text)
            try:
                values[field] = parse(text)
            except ValueError as error:
                raise LabelError(f"label {label}={_short(text)!r}: {error}") from error
    if "app" not in values:
        raise LabelError("label escra.app is missing; it names the application that the container is part of")
    parsed = Labels(**values)  # type: ignore[arg-type]  # each parser returns what its field takes
    _check_order("cpu", labels, parsed.cpu_min_milli, parsed.cpu_max_milli)
    _check_order("memory", labels, parsed.memory_min_bytes, parsed.memory_max_bytes)
    return parsed


def _app(text: str) -> str:
    if not 1 <= len(text) <= _MAX_APP or not text.isprintable() or text != text.strip():
        raise ValueError(f"an application's name has 1 to {_MAX_APP} printable characters")
    return text


def _mode(text: str) -> str:
    if text not in get_args(Mode):
        raise ValueError(f"write one of {', '.join(get_args(Mode))}{_nearest(text, get_args(Mode))}")
    return text


def _weight(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= _MAX_NUMBER):
        raise ValueError(f"write a whole number from 1 to {_MAX_WEIGHT}")
    if not 1 <= int(text) <= _MAX_WEIGHT:
        raise ValueError(f"a weight is from 1 to {_MAX_WEIGHT}; 100 is the default")
    return int(text)


def _cpu(text: str) -> int:
    return parse_cpu(_number(text))


def _bytes(text: str) -> int:
    return parse_bytes(_number(text))


def _number(text: str) -> str:
    if len(text) > _MAX_NUMBER:
        raise ValueError(f"no number needs more than {_MAX_NUMBER} characters")
    return text


def _above_zero(parse: Callable[[str], int]) -> Callable[[str], int]:
    def parse_above_zero(text: str) -> int:
        value = parse(text)
        if value == 0:
            raise ValueError("a maximum of 0 would stop the container; leave the label out for no maximum")
        return value

    return parse_above_zero


_LABELS: dict[str, tuple[str, Callable[[str], object]]] = {
    "escra.app": ("app", _app),
    "escra.mode": ("mode", _mode),
    "escra.weight": ("weight", _weight),
    "escra.cpu.min": ("cpu_min_milli", _cpu),
    "escra.cpu.max": ("cpu_max_milli", _above_zero(_cpu)),
    "escra.memory.min": ("memory_min_bytes", _bytes),
    "escra.memory.max": ("memory_max_bytes", _above_zero(_bytes)),
}


def _known(label: str, text: str) -> tuple[str, Callable[[str], object]]:
    if label not in _LABELS:
        raise LabelError(f"label {_name(label)}={_short(text)!r}: no such label{_nearest(label, _LABELS)}")
    return _LABELS[label]


def _check_order(kind: str, labels: Mapping[str, str], least: int | None, most: int | None) -> None:
    if least is not None and most is not None and least > most:
        low, high = f"escra.{kind}.min", f"escra.{kind}.max"
        raise LabelError(
            f"label {low}={labels[low]!r}: the minimum is above the maximum, {high}={labels[high]!r}"
        )


def _nearest(text: str, names: Mapping[str, object] | tuple[str, ...]) -> str:
    near = difflib.get_close_matches(text[:_MAX_APP], names, n=1, cutoff=0)
    return f"; did you mean {near[0]}?" if near else ""


def _name(label: str) -> str:
    """As it was written, if that can be shown."""
    return _short(label) if label.isprintable() else repr(_short(label))


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
