"""Hosts that are away: what they hold stays counted until they are back, forgotten, or past their lease."""

import itertools

from escra_common.messages import AppTerms, Hello, Terms
from escra_controller.bounds import ALL_APPS, EVERYTHING, NAMELESS, NOTHING
from escra_controller.events import Instruction, Secure, SendTerms
from escra_controller.membership import Membership
from escra_controller.pools import Pools
from escra_controller.registry import Registry
from escra_controller.state import App, Host, Refused

# Clocks differ, and an agent that was killed needs a moment to start again and see that its lease is over.
LEASE_MARGIN_S = 60.0
LEASE_DRIFT = 0.01
# Nobody needs to be believed that there are more.
HOSTS_AT_MOST = 4096


class Absence:
    def __init__(self, registry: Registry, membership: Membership, pools: Pools) -> None:
        self._all = registry
        self._membership = membership
        self._pools = pools
        self._terms = Terms(1, [])

    # ---- terms: what agents do when they are left alone ----------------------------

    def configured(self, out: list[Instruction]) -> None:
        """The applications were configured anew."""
        terms = [_terms(app) for app in self._all.apps.values() if app.spec.fallback != "hold"]
        if terms != self._terms.apps:
            self._terms = Terms(self._terms.serial + 1, terms)
            for name, host in self._all.hosts.items():
                if host.connected:
                    self.tell(name, out)

    def tell(self, name: str, out: list[Instruction]) -> None:
        host = self._all.hosts[name]
        host.sent = self._terms
        out.append(SendTerms(name, self._terms))

    def told(self, host: Host) -> None:
        """Its heartbeat says which terms are in force."""
        if host.sent is not None and host.totals.terms == host.sent.serial:
            host.terms = host.sent
        host.unmet = host.totals.unmet

    def tick(self, now: float, out: list[Instruction]) -> None:
        """Whose lease is over has done by now what its terms say."""
        self._introduce()
        for name, host in self._all.hosts.items():
            # Whether it heard of a change of terms is not known: then it holds, as far as we count.
            if host.connected or host.terms is None or host.terms is not host.sent:
                continue
            if host.may_follow_another:
                continue
            for terms in host.terms.apps:
                over = host.heard_at + terms.lease_s * (1 + LEASE_DRIFT) + LEASE_MARGIN_S
                if now > over and terms.app not in host.lapsed:
                    host.lapsed.add(terms.app)
                    self._lapse(name, terms, now, out)

    def _lapse(self, host: str, terms: AppTerms, now: float, out: list[Instruction]) -> None:
        """Memory at its floor is as much as is in use, which nobody knows here: it stays counted."""
        app = self._all.apps.get(terms.app)
        if app is None:
            return
        for key, member in [(m.key, m) for m in self._all.on(host).values() if m.key in app.members]:
            if terms.fallback == "restore":
                self._membership.forget(key, now, out)
            elif key in app.ledger and member.limit is not None:
                floor = min(member.limit, app.floor(member))
                app.ledger.adopt(key, min(app.ledger[key].counted, self._pools.cpu.charge(floor)))
                member.limit = floor
        self._pools.settle([app], now, out)

    # ---- hosts that another leader might not know -------------------------------------

    def _introduce(self) -> None:
        """One that all controllers have met is known whoever leads next.

        So is one that all hosts know to be among them: whoever they come to then waits for it (``expect``).
        """
        hosts = self._all.hosts.values()
        strange = [host for host in hosts if host.strange]
        if strange:
            count = self.count
            known = not self._all.absent() and all(h.connected and h.totals.hosts >= count for h in hosts)
            for host in strange:
                host.strange = host.unmet and not known

    @property
    def count(self) -> int:
        """Of all hosts that may hold something."""
        return len(self._all.hosts) + len(self._all.absent())

    # ---- hosts from before a restart -----------------------------------------------

    def expect(self, hello: Hello, out: list[Instruction]) -> str:
        """Count those that the leader before counted, and this one has never met, as absent without a name.

        ``hello`` is of a host that is about to join; the nameless one that it was so far, or "".
        """
        known = self._all.hosts.keys() | self._all.absent()
        if self._all.kept is None or not hello.hosts:
            return ""
        nameless = sorted(name for name in known if name.startswith(NAMELESS))
        it_was = nameless[-1] if nameless and hello.host not in known else ""
        there = len((known | {hello.host}) - {it_was})
        free = (f"{NAMELESS}{n}" for n in itertools.count(1) if f"{NAMELESS}{n}" not in known)
        for name in itertools.islice(free, max(0, min(hello.hosts, HOSTS_AT_MOST) - there)):
            self._all.kept[name, ALL_APPS] = EVERYTHING
            out.append(Secure(ALL_APPS, name, EVERYTHING))
            for app in self._all.apps.values():
                app.absent.expect(name, EVERYTHING)
                app.reserve()
        return it_was

    def back(self, host: str, it_was: str, now: float, out: list[Instruction]) -> None:
        """What it holds is known now; what was kept of it is void, once the new bounds are on disk."""
        for app in self._all.apps.values():
            app.absent.joined(host, app.held_on(host))
            app.absent.forgotten(it_was)
            app.reserve()
        for name in filter(None, (host, it_was)):
            self._secure(name, now, out)

    def forget(self, host: str, now: float, out: list[Instruction]) -> None:
        """Raises Refused for one that is connected, and for one that nobody knows."""
        known = self._all.hosts.get(host)
        if known is not None and known.connected:
            raise Refused(f"{host} is connected; stop its agent first, or it holds what it holds")
        if known is None and host not in self._all.absent():
            away = sorted(self._all.absent() | {n for n, h in self._all.hosts.items() if not h.connected})
            raise Refused(f"no host {host!r} is away; away are: {', '.join(away) or 'none'}")
        for key in [member.key for member in self._all.on(host).values()]:
            self._membership.forget(key, now, out)
        self._all.hosts.pop(host, None)
        for app in self._all.apps.values():
            app.absent.forgotten(host)
            app.reserve()
        self._secure(host, now, out)
        self._pools.settle(list(self._all.apps.values()), now, out)

    def _secure(self, host: str, now: float, out: list[Instruction]) -> None:
        for app in self._all.apps.values():
            self._pools.round(app, now, out).secure(host)
        void = [name for name in self._all.forget_kept(host) if name not in self._all.apps]
        out.extend(Secure(name, host, NOTHING) for name in void)


def _terms(app: App) -> AppTerms:
    spec = app.spec
    return AppTerms(spec.name, spec.fallback, spec.lease_s, spec.cpu_min, spec.memory_min)
