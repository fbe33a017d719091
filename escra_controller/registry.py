"""All that the engine knows, and what it knew when it began."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from escra_controller.bounds import ALL_APPS, ALL_HOSTS, Absent, Bound, Bounds
from escra_controller.events import AppSpec
from escra_controller.ledger import Ledger
from escra_controller.state import App, Host, Member, MemberKey

BoundRows = Mapping[tuple[str, str], Bound]


@dataclass(frozen=True, slots=True)
class Registry:
    """``kept`` are the bounds by (host, application) that were on disk at the start, of hosts that are not
    back yet; None where nothing is kept.
    """

    apps: dict[str, App] = field(default_factory=dict)
    hosts: dict[str, Host] = field(default_factory=dict)
    members: dict[MemberKey, Member] = field(default_factory=dict)
    by_host: dict[str, dict[int, Member]] = field(default_factory=dict)
    kept: dict[tuple[str, str], Bound] | None = None

    @classmethod
    def knowing(cls, bounds: BoundRows | None) -> "Registry":
        return cls(kept=None if bounds is None else dict(bounds))

    def on(self, host: str) -> dict[int, Member]:
        """The containers of one host, by their keys on it."""
        return self.by_host.get(host, {})

    def add(self, member: Member) -> None:
        host, key = member.key
        self.members[member.key] = self.by_host.setdefault(host, {})[key] = member

    def pop(self, key: MemberKey) -> Member | None:
        member = self.members.pop(key, None)
        if member is not None:
            on_host = self.by_host[key.host]
            del on_host[key.key]
            if not on_host:
                del self.by_host[key.host]
        return member

    def __contains__(self, app: object) -> bool:
        """Whether it is configured."""
        return app in self.apps and not self.apps[app].removed

    def configured(self) -> set[str]:
        return {name for name, app in self.apps.items() if not app.removed}

    def absent(self) -> set[str]:
        """The hosts from before that are not back."""
        return {host for host, _ in self.kept or () if host != ALL_HOSTS}

    def make_app(self, spec: AppSpec) -> App:
        app = App(spec, Ledger(spec.cpu, _host), Ledger(spec.memory, _host))
        if self.kept is not None:
            mine = {host: bound for (host, name), bound in self.kept.items() if name == spec.name}
            away = {host: bound for (host, name), bound in self.kept.items() if name == ALL_APPS}
            altogether = mine.get(ALL_HOSTS, app.omega)
            app.bounds = Bounds(mine)
            app.absent = Absent(away | {h: b for h, b in mine.items() if h != ALL_HOSTS}, altogether)
            app.reserve()
        self.apps[spec.name] = app
        return app

    def forget_kept(self, host: str) -> list[str]:
        """Forget what was kept of a host; the applications that it was kept for."""
        if self.kept is None:
            return []
        names = [name for kept, name in self.kept if kept == host]
        for name in names:
            del self.kept[host, name]
        return names


def _host(key: MemberKey) -> str:
    return key.host
