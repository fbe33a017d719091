import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from escra_common.errors import WireError
from escra_common.framing import encode
from escra_common.messages import (
    Applied,
    Container,
    CpuLimit,
    CpuOrder,
    Heartbeat,
    Hello,
    Message,
    Sample,
    Samples,
    SetLimits,
    Snapshot,
)
from escra_common.session import HELLO_S, SILENCE_S, Session, hello


def pair() -> tuple[Session, Session]:
    """An agent's session and its controller's, past HELLO and snapshot."""
    agent, controller = Session(hello("agent", "h1"), 0), Session(hello("controller", "c1"), 0)
    agent.receive(controller.greeting(0), 0)
    controller.receive(agent.greeting(0), 0)
    controller.receive(agent.send(Snapshot([]), 0), 0)
    return agent, controller


def fresh() -> Session:
    return Session(hello("controller", "c1"), 0)


def test_both_ends_see_each_other() -> None:
    agent, controller = pair()
    assert agent.peer is not None
    assert agent.peer.host == "c1"
    assert controller.peer is not None
    assert controller.peer.host == "h1"


samples = st.builds(Sample, *[st.integers(1, 2**63 - 1)] * 8)
orders = st.builds(CpuOrder, st.integers(1, 2**63 - 1), *[st.integers(0, 10**6)] * 3, st.booleans())


@given(st.lists(samples, max_size=5).map(Samples), st.lists(orders, max_size=5).map(SetLimits))
def test_messages_arrive_as_they_were(up: Samples, down: SetLimits) -> None:
    agent, controller = pair()
    assert controller.receive(agent.send(up, 0), 0) == [up]
    assert agent.receive(controller.send(down, 0), 0) == [down]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (["samples", []], "SAMPLES came before HELLO"),
        (["set", []], "Invalid value 'set'"),
        (["hello", "agent", 7, 9, "escra 9", "h9"], "speaks protocol 7-9; this is"),
        (["hello", "controller", 1, 1, "escra", "c2"], "both ends are a controller"),
        (["hello", "agent", 1, 1, "escra", ""], "length >= 1"),
        (["hello", "agent", -1, 1, "escra", "h"], ">= 0"),
        (["hello", "agent", 1, 1, "escra", "h" * 300], "length <= 255"),
        (["hello"], "at least"),
        ([], "at least"),
        ({"hello": 1}, "Expected"),
        (None, "Expected"),
    ],
)
def test_a_bad_beginning_is_refused_with_its_reason(body: object, why: str) -> None:
    with pytest.raises(WireError, match=why):
        fresh().receive(encode([0, body]), 0)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (["samples", [[0, 0, 0, 0, 0, 0, 0, 0]]], ">= 1"),
        (["samples", [[1, 0, 0, 0, 0, 0, 0, -1]]], ">= 0"),
        (["samples", [[1, 2**63, 0, 0, 0, 0, 0, 0]]], "<= 9223372036854775807|out of range|Integer"),
        (["samples", [[1, 1.5, 0, 0, 0, 0, 0, 0]]], "Expected `int`"),
        (["samples", [[1, float("nan"), 0, 0, 0, 0, 0, 0]]], "Expected `int`"),
        (["samples", [[1]] * 5000], "length <= 4096"),
        (["applied", [[1, 1, [10**13, 100_000]]]], "<= 1000000000000"),
        (["applied", [[1, 1, [1000, 10]]]], ">= 1000"),
        (["hello", "agent", 1, 1, "escra", "h2"], "a second HELLO"),
        (["snapshot", []], "a second snapshot"),
        (["unheard-of", 1], "Invalid value 'unheard-of'"),
    ],
)
def test_absurd_and_misplaced_messages_are_refused(body: object, why: str) -> None:
    _, controller = pair()
    with pytest.raises(WireError, match=why):
        controller.receive(encode([2, body]), 0)


@pytest.mark.parametrize("body", [[], [0], {}, None, 0, [-1, ["heartbeat"]], ["0", ["heartbeat"]]])
def test_a_frame_without_a_number_is_refused(body: object) -> None:
    with pytest.raises(WireError, match="invalid message"):
        fresh().receive(encode(body), 0)


def test_a_lost_a_repeated_and_an_overtaken_frame_end_the_session() -> None:
    for order in ([1], [0, 0], [1, 0]):
        agent, controller = pair()
        frames = [agent.send(Samples([]), 0), agent.send(Heartbeat(), 0)]
        with pytest.raises(WireError, match=r"frame \d came where frame \d was due"):
            controller.receive(b"".join(frames[i] for i in order), 0)


def test_samples_before_the_snapshot_are_out_of_order() -> None:
    controller, agent = fresh(), Session(hello("agent", "h1"), 0)
    controller.receive(agent.greeting(0), 0)
    with pytest.raises(WireError, match="APPLIED came before the snapshot"):
        controller.receive(agent.send(Applied([]), 0), 0)


def test_a_snapshot_may_come_in_parts() -> None:
    controller, agent = fresh(), Session(hello("agent", "h1"), 0)
    controller.receive(agent.greeting(0), 0)
    controller.receive(agent.send(Snapshot([], last=False), 0), 0)
    with pytest.raises(WireError, match="before the snapshot"):
        controller.receive(agent.send(Applied([]), 0), 0)
    controller, agent = fresh(), Session(hello("agent", "h1"), 0)
    controller.receive(agent.greeting(0), 0)
    controller.receive(agent.send(Snapshot([], last=False), 0), 0)
    controller.receive(agent.send(Snapshot([]), 0), 0)
    controller.receive(agent.send(Applied([]), 0), 0)


def test_silence_ends_a_session_and_speaking_keeps_it() -> None:
    agent, controller = pair()
    controller.check_alive(SILENCE_S)
    with pytest.raises(WireError, match="nothing heard for 3 s"):
        controller.check_alive(SILENCE_S + 0.1)
    controller.receive(agent.send(Heartbeat(), 2.0), 2.0)
    controller.check_alive(SILENCE_S + 0.1)
    assert not agent.heartbeat_due(2.9)
    assert agent.heartbeat_due(3.0)


def test_a_peer_that_never_says_hello_is_dropped() -> None:
    session = fresh()
    session.check_alive(HELLO_S)
    with pytest.raises(WireError, match="no HELLO within 2 s"):
        session.check_alive(HELLO_S + 0.1)


def test_fields_appended_by_a_newer_peer_are_ignored() -> None:
    _, controller = pair()
    body = [*msgspec.to_builtins(Heartbeat(1, 2)), "something new"]
    (message,) = controller.receive(encode([2, body]), 0)
    assert message == Heartbeat(1, 2)


def test_a_hello_of_an_older_peer_has_defaults_for_the_rest() -> None:
    (message,) = fresh().receive(encode([0, ["hello", "agent", 1, 1, "escra 0.0.1", "h1"]]), 0)
    assert isinstance(message, Hello)
    assert message.boot_id == ""


def test_a_thousand_containers_fit_in_one_frame() -> None:
    agent, controller = Session(hello("agent", "h1"), 0), fresh()
    controller.receive(agent.greeting(0), 0)
    none = CpuLimit(None, 100_000)
    path = "/system.slice/docker-" + "f" * 64 + ".scope"
    containers = [
        Container(2**40 + n, f"{n:064x}", f"container-{n}", "shop", path, "auto", none, none)
        for n in range(500)
    ]
    sent: Message = Snapshot(containers)
    assert controller.receive(agent.send(sent, 0), 0) == [sent]
