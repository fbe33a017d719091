"""A daemon's own certificates: what is refused, what a renewal changes, and when they end."""

import asyncio
import contextlib
import os
import ssl
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from escra_common import renewal as renewal_module
from escra_common.errors import ConfigError
from escra_common.expiry import DAY_S
from escra_common.renewal import Renewal
from escra_common.tls import Credentials, TlsConfig, certified_names, expiries, reason
from tests.pki_files import Authority, replace

# Which of the two depends on what the other end sent along.
UNTRUSTED = "unable to get local issuer certificate|self-signed certificate in certificate chain"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@pytest.fixture
def other(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "other")


def meet(server: ssl.SSLContext, client: ssl.SSLContext, name: str = "ctl") -> dict[str, Any]:
    """A handshake in memory: the client's certificate as the server sees it, or an error of either."""
    a, b = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = (client.wrap_bio(a, b, server_hostname=name), server.wrap_bio(b, a, server_side=True))
    for _ in range(3):
        for side in sides:
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
    return sides[1].getpeercert() or {}


def test_it_says_when_its_own_certificate_and_each_ca_end(authority: Authority, other: Authority) -> None:
    tls = authority.issue("agent", "host-1", days=10)
    both = Path(tls.ca).read_text() + (other.folder / "ca.pem").read_text()
    Path(tls.ca).write_text(both)
    own, first, second = expiries(tls, server=False)
    assert own.what == f"this agent's certificate ({tls.cert})"
    assert own.not_after - time.time() == pytest.approx(10 * DAY_S, abs=60)
    assert own.not_after - own.not_before == pytest.approx(11 * DAY_S, abs=60)
    assert first.what != second.what
    assert first.what.startswith("the CA Escra CA ")


def test_one_that_ended_can_still_be_read(authority: Authority) -> None:
    tls = authority.issue("controller", "ctl", days=10, ago_days=30)
    own = expiries(tls, server=True)[0]
    assert "ended on" in own.problem(time.time())
    assert "ended on" in Credentials(tls, server=True).expiries[0].problem(time.time())


def test_what_does_not_fit_together_is_refused(
    authority: Authority, other: Authority, tmp_path: Path
) -> None:
    agent, controller = authority.issue("agent", "host-1"), authority.issue("controller", "ctl")
    stranger = other.issue("agent", "host-1")
    broken = tmp_path / "broken.pem"
    broken.write_text("nothing")
    locked = tmp_path / "locked.key"
    encrypt = ["openssl", "pkcs8", "-topk8", "-in", agent.key, "-out", str(locked), "-passout", "pass:secret"]
    subprocess.run(encrypt, check=True)
    for tls, server, why in (
        (controller, False, r"not work as an agent's certificate .*unsuitable certificate purpose"),
        (agent, True, r"not work as a controller's certificate .*pki issue --controller NAME"),
        (TlsConfig(agent.ca, stranger.cert, stranger.key), False, "unable to get local issuer certificate"),
        (TlsConfig(agent.ca, agent.cert, controller.key), False, "cert and key: .*values mismatch"),
        (TlsConfig(str(broken), agent.cert, agent.key), False, r"\[tls\] ca: cannot use"),
        (TlsConfig(agent.ca, agent.cert, "/nowhere"), False, "cannot use .* with /nowhere"),
        (TlsConfig(agent.ca, agent.cert, str(locked)), False, "cert and key: cannot use"),
        (TlsConfig(agent.ca, agent.cert, "agent.key"), False, "LoadCredential=agent.key:PATH"),
    ):
        with pytest.raises(ConfigError, match=why):
            expiries(tls, server=server)
        with pytest.raises(ConfigError, match=why):
            Credentials(tls, server=server)


def test_the_two_roles_know_each_other_and_no_third(authority: Authority, other: Authority) -> None:
    server = Credentials(authority.issue("controller", "ctl", "10.0.0.1"), server=True).context
    client = Credentials(authority.issue("agent", "Host-1"), server=False).context
    assert certified_names(meet(server, client)) == {"host-1"}
    assert meet(server, client, "10.0.0.1")
    for name in ("ctl2", "10.0.0.2"):
        with pytest.raises(ssl.SSLCertVerificationError, match=f"not valid for '{name}'"):
            meet(server, client, name)
    stranger = Credentials(other.issue("agent", "host-1"), server=False).context
    with pytest.raises(ssl.SSLCertVerificationError, match=UNTRUSTED):
        meet(server, stranger)
    stranger.load_verify_locations(authority.folder / "ca.pem")
    with pytest.raises(ssl.SSLCertVerificationError, match=UNTRUSTED):
        meet(server, stranger)


def test_a_certificate_of_the_other_role_is_refused_in_the_handshake(authority: Authority) -> None:
    agent, controller = authority.issue("agent", "ctl"), authority.issue("controller", "ctl")
    server, client = (Credentials(tls, server=tls is controller).context for tls in (controller, agent))
    false_server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    false_server.load_cert_chain(agent.cert, agent.key)
    with pytest.raises(ssl.SSLCertVerificationError, match="unsuitable certificate purpose"):
        meet(false_server, client)
    false_client = ssl.create_default_context(cafile=controller.ca)
    false_client.load_cert_chain(controller.cert, controller.key)
    with pytest.raises(ssl.SSLCertVerificationError, match="unsuitable certificate purpose"):
        meet(server, false_client)


def test_one_that_ended_is_refused_in_the_handshake(authority: Authority) -> None:
    good = [authority.issue("controller", "ctl"), authority.issue("agent", "host-1")]
    ended = [authority.issue(role, "old", "ctl", days=10, ago_days=30) for role in ("controller", "agent")]
    for server, client in ((good[0], ended[1]), (ended[0], good[1])):
        with pytest.raises(ssl.SSLCertVerificationError, match="certificate has expired"):
            meet(Credentials(server, server=True).context, Credentials(client, server=False).context)


def test_a_renewal_is_used_for_new_connections(authority: Authority) -> None:
    tls = authority.issue("agent", "host-1", days=10)
    server = Credentials(authority.issue("controller", "ctl"), server=True)
    credentials = Credentials(tls, server=False)
    assert not credentials.refresh(), "nothing new"
    before = meet(server.context, credentials.context)["serialNumber"]
    authority.issue("agent", "host-1", days=20)
    assert credentials.refresh()
    assert meet(server.context, credentials.context)["serialNumber"] != before
    assert credentials.expiries[0].not_after - time.time() > 19 * DAY_S


def test_files_count_as_changed_when_they_have_come_to_rest(authority: Authority) -> None:
    credentials = Credentials(authority.issue("agent", "host-1"), server=False)
    assert not credentials.changed()
    authority.issue("agent", "host-1")
    assert not credentials.changed(), "somebody may be at it"
    authority.issue("agent", "host-1")
    assert not credentials.changed()
    assert credentials.changed()
    assert credentials.changed(), "until they are taken"
    credentials.refresh()
    assert not credentials.changed()


def test_a_renewal_that_does_not_work_changes_nothing_and_is_said_once(
    authority: Authority, other: Authority
) -> None:
    tls = authority.issue("agent", "host-1")
    credentials = Credentials(tls, server=False)
    renewal = Renewal(credentials, list)
    context, wall = credentials.context, time.time()
    ended = authority.issue("agent", "old", days=10, ago_days=30)
    with capture_logs() as logs:
        for source, why in ((other.issue("agent", "host-1"), "unable to get local"), (ended, "ended on")):
            replace(tls, source, ca=False)
            renewal.renew()
            renewal.renew()
            assert why in logs[-1]["reason"]
            assert why in renewal.problems(wall)[0]
        Path(tls.key).unlink()
        renewal.renew()
        assert [entry["kind"] for entry in logs] == ["certificate_refused"] * 3
        assert credentials.context is context
        authority.issue("agent", "host-1")
        renewal.renew()
    assert logs[-1]["kind"] == "certificate_renewed"
    assert credentials.context is not context
    assert renewal.problems(wall) == []


def test_the_ca_changes_by_way_of_a_file_with_both(authority: Authority, other: Authority) -> None:
    mine, theirs = authority.issue("controller", "ctl"), authority.issue("agent", "host-1")
    server, client = Credentials(mine, server=True), Credentials(theirs, server=False)
    old, new = Path(mine.ca).read_text(), (other.folder / "ca.pem").read_text()
    Path(mine.ca).write_text(old + new)  # the same file for both here
    assert server.refresh()
    assert client.refresh()
    assert meet(server.context, client.context)
    replace(mine, other.issue("controller", "ctl"), ca=False)
    assert server.refresh()
    assert meet(server.context, client.context), "the one is of the new CA, the other of the old"
    kept = client.context
    Path(mine.ca).write_text(new)
    assert server.refresh()
    with pytest.raises(ssl.SSLCertVerificationError, match=UNTRUSTED):
        meet(server.context, kept)


def test_what_ends_is_logged_once_a_day(authority: Authority) -> None:
    tls = authority.issue("agent", "host-1", days=305, ago_days=300)
    renewal = Renewal(Credentials(tls, server=False), list)
    with capture_logs() as logs:
        renewal.remind(0, time.time())
        renewal.remind(3600, time.time())
    (entry,) = logs
    assert (entry["kind"], entry["log_level"]) == ("certificate_ends", "warning")
    assert "ends in 4 days" in entry["reason"]


def test_without_tls_there_is_nothing_to_renew() -> None:
    renewal = Renewal(None, list)
    renewal.renew()
    assert renewal.problems(time.time()) == []


def test_errors_are_told_in_words() -> None:
    assert reason(ConnectionResetError(104, "Connection reset by peer")) == "Connection reset by peer"
    assert reason(ConnectionResetError()) == "the other end hung up"
    assert reason(OSError()) == "OSError"
    alert = ssl.SSLError(1, "[SSL: TLSV1_ALERT_UNKNOWN_CA] tlsv1 alert unknown ca (_ssl.c:2580)")
    alert.reason = "TLSV1_ALERT_UNKNOWN_CA"
    assert reason(alert) == "TLS: tlsv1 alert unknown ca"


def test_credentials_may_be_systemds(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    tls = authority.issue("agent", "host-1")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(authority.folder))
    named = TlsConfig("ca.pem", os.path.basename(tls.cert), os.path.basename(tls.key))
    assert tls.cert in Credentials(named, server=False).expiries[0].what


def test_new_files_are_noticed_by_themselves(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(renewal_module, "LOOK_S", 0.02)
    credentials = Credentials(authority.issue("agent", "host-1"), server=False)

    async def main() -> None:
        watching = asyncio.create_task(Renewal(credentials, list).run())
        await asyncio.sleep(0.1)
        before = credentials.context
        authority.issue("agent", "host-1")
        for _ in range(500):
            await asyncio.sleep(0.01)
            if credentials.context is not before:
                break
        assert credentials.context is not before
        watching.cancel()

    asyncio.run(main())
