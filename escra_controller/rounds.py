"""One round of decisions about one application, and the record that it leaves."""

from collections.abc import Sequence
from dataclasses import dataclass

from escra_controller.bounds import NOTHING, Bound
from escra_controller.events import Decision, Instruction, Resource, Secure
from escra_controller.policy import Wish
from escra_controller.state import App, Member


@dataclass(frozen=True, slots=True)
class Round:
    """``out`` collects the instructions.

    ``reachable`` are the members whose agents are connected: the others keep, and are counted at,
    what they hold.
    """

    app: App
    reachable: Sequence[Member]
    now: float
    out: list[Instruction]

    def secure(self, host: str, more: Bound = NOTHING) -> None:
        """See to it that this host may be granted ``more``, soon."""
        if (bound := self.app.to_secure(host, more)) is not None:
            self.out.append(Secure(self.app.spec.name, host, bound))

    def record(
        self, member: Member, resource: Resource, wish: Wish, before: int | None, after: int | None
    ) -> None:
        """A limit moved, or something kept it from moving."""
        decision = self.decision(member, resource, wish, before, after)
        member.decisions.append(decision)
        self.out.append(decision)

    def note(self, member: Member, wish: Wish) -> None:
        """A wish for CPU that could not be met is worth a line, once a second; it is no change."""
        last = member.decisions[-1] if member.decisions else None
        if last is None or last.rule != wish.rule or self.now - last.at >= 1:
            member.decisions.append(self.decision(member, "cpu", wish, member.limit, member.limit))

    def decision(
        self, member: Member, resource: Resource, wish: Wish, before: int | None, after: int | None
    ) -> Decision:
        return Decision(
            at=self.now,
            app=member.info.app,
            host=member.key.host,
            container=member.info.name,
            key=member.key.key,
            resource=resource,
            rule=wish.rule,
            cause=wish.cause,
            before=before,
            after=after,
            numbers=wish.numbers,
        )
