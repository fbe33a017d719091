"""What ``escra top`` shows and what keys do to it.  Pure: pictures and keys in, a state to draw out."""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from escra_controller.top.items import (
    FRAMES_KEPT,
    KINDS,
    SORT_KEYS,
    Item,
    Key,
    Kind,
    Past,
    in_order,
    listed,
    matching,
)

Mode = Literal["list", "detail", "help"]
PAGE = 10

# What each key is for, as the help says it; the names are Textual's.
_SORTS = {"c": "cpu", "l": "limit", "t": "throttled", "m": "memory", "o": "oom", "n": "name"}


@dataclass
class Top:
    """``last`` is the newest picture shown, ``lost`` why there is no newer one."""

    interval_s: float = 1.0
    kind: Kind = "containers"
    mode: Mode = "list"
    sort: str = "cpu"
    reverse: bool = False
    words: str = ""
    filtering: bool = False
    within: tuple[Kind, str] | None = None
    own_scale: bool = False
    paused: bool = False
    ended: bool = False
    lost: str = ""
    last: Mapping[str, Any] | None = None
    explained: Mapping[str, Any] | None = None
    scroll: int = 0
    past: Past = field(default_factory=Past)
    _listed: dict[Kind, list[Item]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    _cursor: Key | None = None
    _row: int = 0
    _detail: Item | None = None
    _before: Mode = "list"
    _waiting: deque[Mapping[str, Any]] = field(default_factory=lambda: deque(maxlen=FRAMES_KEPT))

    # ---- what is heard ---------------------------------------------------------------

    def take(self, reply: Mapping[str, Any]) -> None:
        """A picture, or what is said about the container that is looked at."""
        self.lost = ""
        if "explain" in reply:
            if not self.paused or self.explained is None:
                self._explain(reply["explain"])
        elif self.paused:
            self._waiting.append(reply)
        else:
            self._picture(reply)

    def _explain(self, about: Mapping[str, Any] | None) -> None:
        # What was asked for before may still be under way.
        if about and self.explaining == (about["container"]["id"], about["container"]["host"]):
            self.explained = about

    def _picture(self, picture: Mapping[str, Any]) -> None:
        self.last = picture
        self._listed = listed(picture)
        self.past.add(item for items in self._listed.values() for item in items)

    # ---- what is shown ---------------------------------------------------------------

    @property
    def explaining(self) -> tuple[str, str] | None:
        """The id and host of the container whose decisions are wanted."""
        return None if self._detail is None else (self._detail.row["id"], self._detail.host)

    def all_items(self) -> list[Item]:
        """Those of the list, before the filter."""
        items = self._listed[self.kind]
        if self.within is not None and self.kind == "containers":
            what, name = self.within
            items = [i for i in items if (i.app if what == "apps" else i.host) == name]
        return items

    def items(self) -> list[Item]:
        """Those that pass the filter, in order."""
        return in_order(matching(self.all_items(), self.words), self.sort, reverse=self.reverse)

    def cursor(self, items: list[Item]) -> int:
        """The row chosen: the item it was on, wherever that is now, else the row where it was."""
        for row, item in enumerate(items):
            if item.key == self._cursor:
                return row
        return max(0, min(self._row, len(items) - 1))

    def detail(self) -> Item | None:
        """The container looked at, as it is in the last picture; None when it has gone."""
        if self._detail is None:
            return None
        found = [i for i in self._listed["containers"] if i.key == self._detail.key]
        return found[0] if found else None

    # ---- keys --------------------------------------------------------------------------

    def press(self, key: str, character: str | None = None) -> None:
        """``key`` is its name; ``character`` what it writes, if anything."""
        if key == "ctrl+c":
            self.ended = True
        elif self.filtering:
            self._type(key, character)
        elif key in ("q", "Q"):
            self.ended = True
        elif self.mode == "help":
            self.mode = self._before
        elif action := _KEYS.get(key):
            action(self)
        elif self.mode == "list" and key in _SORTS:
            self._sort_by(_SORTS[key])

    def _type(self, key: str, character: str | None) -> None:
        match key:
            case "enter":
                self.filtering = False
            case "escape":
                self.filtering, self.words = False, ""
            case "backspace":
                self.words = self.words[:-1]
            case "ctrl+u":
                self.words = ""
            case _ if character and character.isprintable():
                self.words += character

    def _sort_by(self, key: str) -> None:
        self.reverse = key == self.sort and not self.reverse
        self.sort = key

    def next_sort(self, step: int) -> None:
        self.sort = SORT_KEYS[(SORT_KEYS.index(self.sort) + step) % len(SORT_KEYS)]
        self.reverse = False

    def turn(self) -> None:
        self.reverse = not self.reverse

    def show(self, kind: Kind) -> None:
        self.kind, self.mode, self.within = kind, "list", None
        self._leave_detail()

    def next_kind(self, step: int) -> None:
        self.show(KINDS[(KINDS.index(self.kind) + step) % len(KINDS)])

    def pause(self) -> None:
        self.paused = not self.paused
        if not self.paused:
            while self._waiting:
                self._picture(self._waiting.popleft())

    def move(self, rows: int) -> None:
        if self.mode == "detail":
            self.scroll = max(0, self.scroll + rows)
            return
        items = self.items()
        if items:
            self._row = max(0, min(len(items) - 1, self.cursor(items) + rows))
            self._cursor = items[self._row].key

    def enter(self) -> None:
        """From an application or a host to its containers, from a container to its decisions."""
        items = self.items()
        if self.mode != "list" or not items:
            return
        item = items[self.cursor(items)]
        if self.kind == "containers":
            self._row, self._cursor = self.cursor(items), item.key
            self._detail, self.mode, self.explained, self.scroll = item, "detail", None, 0
        else:
            self.within, self.kind, self.words = (self.kind, item.name), "containers", ""
            self._row, self._cursor = 0, None

    def back(self) -> None:
        """One step back: from the decisions, the filter, the containers of one."""
        if self.mode == "detail":
            self.mode = "list"
            self._leave_detail()
        elif self.words:
            self.words = ""
        elif self.within is not None:
            self.kind, name = self.within
            self._cursor, self.within = ("app" if self.kind == "apps" else "host", name), None

    def filter(self) -> None:
        if self.mode == "list":
            self.filtering = True

    def rescale(self) -> None:
        self.own_scale = not self.own_scale

    def help(self) -> None:
        self._before, self.mode = self.mode, "help"

    def _leave_detail(self) -> None:
        self._detail, self.explained = None, None


_KEYS: dict[str, Callable[[Top], None]] = {
    "1": lambda top: top.show("apps"),
    "2": lambda top: top.show("containers"),
    "3": lambda top: top.show("hosts"),
    "tab": lambda top: top.next_kind(1),
    "shift+tab": lambda top: top.next_kind(-1),
    "up": lambda top: top.move(-1),
    "k": lambda top: top.move(-1),
    "down": lambda top: top.move(1),
    "j": lambda top: top.move(1),
    "pageup": lambda top: top.move(-PAGE),
    "pagedown": lambda top: top.move(PAGE),
    "home": lambda top: top.move(-(1 << 30)),
    "g": lambda top: top.move(-(1 << 30)),
    "end": lambda top: top.move(1 << 30),
    "G": lambda top: top.move(1 << 30),
    "enter": Top.enter,
    "escape": Top.back,
    "backspace": Top.back,
    "s": lambda top: top.next_sort(1),
    "S": lambda top: top.next_sort(-1),
    "r": Top.turn,
    "slash": Top.filter,
    "b": Top.rescale,
    "space": Top.pause,
    "question_mark": Top.help,
    "h": Top.help,
    "f1": Top.help,
}

HELP = (
    ("1 2 3, Tab", "applications, containers, hosts"),
    ("Up Down, j k", "choose a line; PgUp PgDn by ten, Home End to the ends"),
    ("Enter", "the containers of an application or host; a container's decisions"),
    ("Esc", "back; ends the filter"),
    ("/", "filter by name, application, host or state; Enter keeps it, Esc ends it"),
    ("c l t m o n", "sort by CPU, limit, throttling, memory, OOM kills, name; again: reversed"),
    ("s S, r", "sort by the next or previous key; reverse the order"),
    ("b", "bars to one scale, or each to its own limit"),
    ("Space", "pause; what comes meanwhile is shown afterwards"),
    ("?, h, F1", "this help"),
    ("q, Ctrl-C", "quit"),
)
