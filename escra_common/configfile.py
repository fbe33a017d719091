"""Reading a TOML file into a typed, frozen configuration, with errors a person can act on."""

import difflib
import re
import tomllib
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from escra_common.errors import ConfigError
from escra_common.units import Cpu, Size, parse_bytes, parse_cpu

T = TypeVar("T")

_UNKNOWN = re.compile(r"Object contains unknown field `(?P<name>[^`]*)`(?: - at `\$(?P<path>.*)`)?")
_AT = re.compile(r"(?P<what>.*?)(?: - at `\$\.?(?P<path>.*)`)?", re.DOTALL)


class Address(str):
    """``host:port``; an IPv6 host in brackets."""

    __slots__ = ()

    @property
    def host(self) -> str:
        return self.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        return int(self.rpartition(":")[2])

    @property
    def is_loopback(self) -> bool:
        return self.host in ("localhost", "::1") or re.fullmatch(r"127(\.\d+){3}", self.host) is not None


class AddressOrOff(Address):
    """``host:port``, or "" for not at all."""

    __slots__ = ()


class Addresses(tuple[Address, ...]):
    """One ``host:port``, or a list of them."""

    __slots__ = ()

    @property
    def is_loopback(self) -> bool:
        return all(address.is_loopback for address in self)

    def __str__(self) -> str:
        return ", ".join(self)


def load(path: Path, kind: type[T]) -> T:
    """The configuration in ``path``; raises ConfigError with the file, the key and the reason."""
    try:
        return parse(path.read_text(), kind)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"cannot read {path}: {reason}") from error
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def parse(text: str, kind: type[T]) -> T:
    try:
        raw = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: a number of thousands of digits
        raise ConfigError(f"not TOML: {error}") from error
    try:
        return msgspec.convert(raw, kind, dec_hook=_convert)
    except msgspec.ValidationError as error:
        raise ConfigError(_name_keys(_explain(str(error), kind), raw, kind)) from error


def _name_keys(text: str, raw: dict[str, Any], kind: type) -> str:
    """msgspec writes ``apps[...].cpu`` whichever application it was: find the one."""
    for field in inspect.type_info(kind).fields:  # type: ignore[attr-defined]
        table = raw.get(field.encode_name)
        if f"{field.encode_name}[...]" not in text or not isinstance(table, dict):
            continue
        for name, value in table.items():
            try:
                msgspec.convert(value, field.type.value_type.cls, dec_hook=_convert)
            except msgspec.ValidationError:
                return text.replace(f"{field.encode_name}[...]", f"{field.encode_name}.{name}", 1)
    return text


def show(config: msgspec.Struct) -> str:
    """The configuration as it is understood, with all defaults, for people to read."""
    return msgspec.json.format(msgspec.json.encode(config, enc_hook=_plain), indent=2).decode()


def _plain(value: Any) -> Any:
    match value:
        case Cpu():
            return value / 1000
        case Size():
            return int(value)
        case Address():
            return str(value)
        case Addresses():
            return list(value)
    raise NotImplementedError(type(value))


def _convert(kind: type, value: Any) -> Any:
    if kind is Cpu:
        return Cpu(parse_cpu(value))
    if kind is Size:
        return Size(parse_bytes(value))
    if kind is Addresses:
        listed = value if isinstance(value, list) else [value]
        if not listed:
            raise ValueError("the list is empty")
        if len(set(listed)) < len(listed):
            raise ValueError("one address is listed twice")
        return Addresses(_convert(Address, each) for each in listed)
    if kind is AddressOrOff:
        return AddressOrOff(_convert(Address, value) if value != "" else "")
    if kind is Address:
        match = re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[^:\s]+):(\d{1,5})", str(value))
        if match is None or not 0 < int(match[2]) < 65536:
            raise ValueError(f"{value!r} is not an address; write host:port")
        return Address(value)
    raise NotImplementedError(kind)


def _explain(error: str, kind: type) -> str:
    if unknown := _UNKNOWN.fullmatch(error):
        path = (unknown["path"] or "").lstrip(".")
        key = f"{path}.{unknown['name']}" if path else unknown["name"]
        valid = _field_names(kind, path)
        near = difflib.get_close_matches(unknown["name"], valid, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"valid here: {', '.join(sorted(valid))}"
        return f"unknown key {key!r}; {hint}"
    found = _AT.fullmatch(error)
    assert found is not None
    return f"{found['path']}: {found['what']}" if found["path"] else found["what"]


def _field_names(kind: type, path: str) -> list[str]:
    """The keys that a table at ``path`` may have; msgspec writes ``apps[...]`` for any key of a map."""
    found: inspect.Type = inspect.type_info(kind)
    for step in re.findall(r"[^.\[\]]+|\[[^\]]*\]", path):
        if isinstance(found, inspect.UnionType):
            found = next(t for t in found.types if not isinstance(t, inspect.NoneType))
        if isinstance(found, inspect.StructType):
            found = next(f.type for f in found.fields if f.encode_name == step)
        elif isinstance(found, inspect.DictType):
            found = found.value_type
        elif isinstance(found, inspect.ListType):
            found = found.item_type
    return [f.encode_name for f in found.fields] if isinstance(found, inspect.StructType) else []
