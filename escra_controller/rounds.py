"""One round of decisions about one application, and the record that it leaves."""

from collections.abc import Mapping
from dataclasses import dataclass

from escra_controller.bounds import NOTHING, Bound
from escra_controller.events import Decision, Instruction, Resource, Secure
from escra_controller.policy import Wish
from escra_controller.state import App, Host, Member


@dataclass(slots=True)
class Round:
    """``out`` collects the instructions."""

    app: App
    hosts: Mapping[str, Host]
    now: float
    out: list[Instruction]

    def reaches(self, member: Member) -> bool:
        """Whether its agent is connected: the others keep, and are counted at, what they hold."""
        return self.hosts[member.key.host].connected

    def admits(self, member: Member) -> bool:
        """Whether it may have its first limit."""
        return self.reaches(member) and not self.hosts[member.key.host].strange

    @property
    def reachable(self) -> list[Member]:
        """All of them: for the rare case that concerns everybody."""
        return [member for member in self.app.members.values() if self.reaches(member)]

    def secure(self, host: str, more: Bound = NOTHING) -> None:
        """See to it that this host may be granted ``more``, soon."""
        if (bound := self.app.to_secure(host, more)) is not None:
            self.out.append(Secure(self.app.spec.name, host, bound))

    def record(
        self, member: Member, resource: Resource, wish: Wish, before: int | None, after: int | None
    ) -> None:
        """A limit moved, or something kept it from moving."""
        decision = self.decision(member, resource, wish, before, after)
        member.keep(decision)
        self.out.append(decision)

    def note(self, member: Member, wish: Wish) -> None:
        """A wish for CPU that could not be met is worth a line, once a second; it is no change."""
        last = member.decisions[-1] if member.decisions else None
        if last is None or last.rule != wish.rule or self.now - last.at >= 1:
            member.keep(self.decision(member, "cpu", wish, member.limit, member.limit))

    def decision(
        self, member: Member, resource: Resource, wish: Wish, before: int | None, after: int | None
    ) -> Decision:
        key, info = member.key, member.info
        return Decision(
            at=self.now,
            app=info.app,
            host=key.host,
            container=info.name,
            key=key.key,
            resource=resource,
            rule=wish.rule,
            cause=wish.cause,
            before=before,
            after=after,
            numbers=wish.numbers,
        )
