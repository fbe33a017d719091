"""The agents' port of a real controller, with peers that misbehave."""

import socket
import ssl
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from benchmarks.pair import Pair, running_pair
from benchmarks.speaker import Speaker
from escra_common.framing import Decoder, encode
from escra_common.messages import Container, CpuLimit, Snapshot
from escra_common.session import Session, hello

CONTROLLER = 'grace_s = 0\n[apps.bench]\ncpu = 100\ncpu_max = 4\nmemory = "1GiB"\n'


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with running_pair(CONTROLLER, "", start=False) as made:
        made.start("controller")
        made.wait_until(lambda: made.ask("status") is not None, "controller up")
        yield made


def said(port: int, data: bytes) -> str:
    """What the controller answers to ``data`` before it closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as peer:
        peer.sendall(data)
        decoder, texts = Decoder(), []
        while chunk := peer.recv(65536):
            texts += [str(body) for body in decoder.feed(chunk)]
    return "\n".join(texts)


def greeting(host: str = "h", **facts: object) -> bytes:
    return Session(hello("agent", host, **facts), 0).greeting(0)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\xff\xff\xff\xff", "announced a frame of 4294967295 bytes"),
        (b"GET / HTTP/1.1\r\n\r\n", "announced a frame of"),
        (struct.pack(">I", 3) + b"\xc1\xc1\xc1", "not msgpack"),
        (encode([0, ["samples", []]]), "SAMPLES came before HELLO"),
        (encode([0, ["hello", "agent", 99, 99, "escra 9", "h"]]), "speaks protocol 99-99"),
        (encode([0, ["hello", "controller", 1, 1, "escra", "h"]]), "both ends are a controller"),
        (greeting() + encode([1, ["samples", []]]), "SAMPLES came before the snapshot"),
        (greeting() + greeting(), "frame 0 came where frame 1 was due"),
        (greeting() + encode([1, ["hello", "agent", 1, 1, "escra", "h"]]), "a second HELLO"),
    ],
)
def test_a_bad_peer_is_told_why_and_cut_off(pair: Pair, data: bytes, why: str) -> None:
    assert why in said(pair.port, data)
    assert pair.ask("status")["state"] == "ok"


def test_a_snapshot_that_lists_one_container_twice_is_refused(pair: Pair) -> None:
    none = CpuLimit(None, 100_000)
    twin = Container(7, "id", "name", "bench", "/x", "auto", none, none)
    session = Session(hello("agent", "twins"), 0)
    assert "lists one container twice" in said(
        pair.port, session.greeting(0) + session.send(Snapshot([twin, twin]), 0)
    )
    assert all(row["host"] != "twins" for row in pair.ask("agents"))


def test_a_second_machine_with_the_same_name_is_refused_and_the_first_goes_on(pair: Pair) -> None:
    with Speaker(pair.port, 3) as first:
        session = Session(hello("agent", "speaker", boot_id="another machine"), 0)
        answer = said(pair.port, session.greeting(0))
        assert "duplicate host name" in answer
        assert "set `host`" in answer
        assert first.throttle(1) < 1.0
        (row,) = [row for row in pair.ask("agents") if row["host"] == "speaker"]
        assert row["state"] == "connected"
    pair.wait_until(
        lambda: any(r["host"] == "speaker" and r["state"] == "lost" for r in pair.ask("agents")), "lost"
    )
    assert pair.ask("status")["state"] == "degraded"
    with Speaker(pair.port, 3):
        assert pair.ask("status")["state"] == "ok", "the same machine may come back"


def test_silent_and_slow_peers_cost_others_nothing(pair: Pair) -> None:
    loris = [
        socket.create_connection(("127.0.0.1", pair.port), source_address=(f"127.0.1.{1 + n % 16}", 0))
        for n in range(200)
    ]
    try:
        for peer in loris[::2]:
            peer.sendall(b"\x00\x00\x01")
        with Speaker(pair.port, 5) as honest:
            assert sorted(honest.throttle(1 + n) for n in range(5))[2] < 0.1
        time.sleep(2.5)
        assert all(peer.recv(65536) is not None for peer in loris)
        assert loris[0].recv(65536) == b"", "cut off after a while"
    finally:
        for peer in loris:
            peer.close()


def test_absurd_counters_do_not_hurt(pair: Pair) -> None:
    with Speaker(pair.port, 2) as speaker:
        key, big = speaker.key(1), 2**63 - 1
        speaker.say_raw(["samples", [[key, big, big, big, big, big, big, big]]])
        speaker.say_raw(["samples", [[key, 1, 0, 0, 0, 0, 0, 0], [key, 2, big, 0, big, 0, 0, 0]]])
        assert speaker.throttle(2) < 1.0
    assert pair.ask("apps")[0]["cpu"]["allocated_cores"] <= 100


# ---- TLS ---------------------------------------------------------------------------


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return authority


def issue(authority: trustme.CA, folder: Path, name: str) -> str:
    """A certificate for ``name``; the [tls] section that uses it."""
    made = authority.issue_cert(name)
    made.private_key_pem.write_to_path(str(folder / f"{name}.key"))
    made.cert_chain_pems[0].write_to_path(str(folder / f"{name}.pem"))
    return f'[tls]\nca = "{folder}/ca.pem"\ncert = "{folder}/{name}.pem"\nkey = "{folder}/{name}.key"\n'


def test_agents_need_a_certificate_of_the_same_ca_with_their_name(
    authority: trustme.CA, tmp_path: Path
) -> None:
    controller = CONTROLLER + issue(authority, tmp_path, "localhost")
    agent = issue(authority, tmp_path, "host-1")
    with running_pair(controller, "", start=False) as pair:
        pair.write_config("agent", f'host = "host-1"\n[docker]\nenabled = false\n{agent}')
        text = (pair.folder / "agent.toml").read_text().replace("127.0.0.1:", "localhost:")
        (pair.folder / "agent.toml").write_text(text)
        pair.start()
        pair.wait_until(lambda: [r["host"] for r in pair.ask("agents")] == ["host-1"], "TLS works")
        pair.stop("agent")

        assert said(pair.port, greeting()) == "", "plaintext is no answer"
        client = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
        client.load_cert_chain(tmp_path / "host-1.pem", tmp_path / "host-1.key")
        with (
            socket.create_connection(("localhost", pair.port), timeout=5) as raw,
            client.wrap_socket(raw, server_hostname="localhost") as peer,
        ):
            assert peer.version() == "TLSv1.3"
            peer.sendall(greeting("host-2"))
            decoder, answer = Decoder(), ""
            while chunk := peer.recv(65536):
                answer += str(list(decoder.feed(chunk)))
        assert "calls itself host-2, its certificate speaks for host-1" in answer
        stranger = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
        assert _tls_answer(pair.port, stranger) == b"", "no certificate, no word"


def _tls_answer(port: int, client: ssl.SSLContext) -> bytes:
    """TLS 1.3 tells a client without a certificate only after its first word, or just hangs up."""
    with socket.create_connection(("localhost", port), timeout=5) as raw:
        try:
            with client.wrap_socket(raw, server_hostname="localhost") as peer:
                peer.sendall(greeting())
                return peer.recv(65536)
        except OSError:
            return b""
