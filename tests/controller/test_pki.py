"""The private CA: what it makes, as openssl judges it, and what it refuses."""

import json
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from escra_controller import pki
from escra_controller.daemon import main

NOW = datetime.now(UTC).replace(microsecond=0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pki.init(tmp_path / "pki", NOW)
    return tmp_path / "pki"


def openssl(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = ["openssl", *(str(each) for each in arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["pki", *(str(each) for each in arguments)])


@pytest.mark.parametrize(
    ("role", "good_for", "not_for"),
    [("agent", "sslclient", "sslserver"), ("controller", "sslserver", "sslclient")],
)
def test_openssl_accepts_each_role_for_its_purpose_only(
    folder: Path, role: pki.Role, good_for: str, not_for: str
) -> None:
    pki.issue(folder, role, "host-1.example", ["10.0.0.1", "fd00::1"], NOW)
    ca, cert, key = pki.files(folder, role, "host-1.example")

    def verify(purpose: str, *more: str) -> subprocess.CompletedProcess[str]:
        return openssl("verify", "-x509_strict", "-purpose", purpose, *more, "-CAfile", ca, cert)

    for more in ((), ("-verify_hostname", "host-1.example"), ("-verify_ip", "fd00::1")):
        done = verify(good_for, *more)
        assert done.returncode == 0, done.stderr
    assert "unsuitable certificate purpose" in verify(not_for).stderr
    assert "mismatch" in verify(good_for, "-verify_hostname", "host-2").stderr
    public = openssl("pkey", "-in", key, "-pubout").stdout
    assert public == openssl("x509", "-in", cert, "-noout", "-pubkey").stdout


def test_a_certificate_cannot_issue_others(folder: Path) -> None:
    text = openssl("x509", "-in", folder / "ca.pem", "-noout", "-text").stdout
    assert "CA:TRUE, pathlen:0" in text
    pki.issue(folder, "agent", "host-1", [], NOW)
    text = openssl("x509", "-in", folder / "agent-host-1.pem", "-noout", "-text").stdout
    assert "CA:FALSE" in text
    assert "Certificate Sign" not in text


def test_lifetimes(folder: Path) -> None:
    made = pki.issue(folder, "agent", "host-1", [], NOW, days=pki.MAX_LEAF_DAYS)
    assert made.not_after - made.not_before == 398 * 86_400
    authority = openssl("x509", "-in", folder / "ca.pem", "-noout", "-enddate").stdout
    assert f"{NOW + timedelta(days=3650):%Y GMT}" in authority
    late = pki.issue(folder, "agent", "host-2", [], NOW + timedelta(days=3600))
    assert late.not_after == int((NOW + timedelta(days=3650)).timestamp()), "no longer than its CA"
    with pytest.raises(pki.PkiError, match="ended on"):
        pki.issue(folder, "agent", "host-3", [], NOW + timedelta(days=3651))


def test_secrets_are_readable_by_their_owner_alone(folder: Path) -> None:
    pki.issue(folder, "agent", "host-1", [], NOW)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == {
        "ca.key": 0o600,
        "ca.pem": 0o644,
        "agent-host-1.key": 0o600,
        "agent-host-1.pem": 0o644,
        "issued.jsonl": 0o600,
    }
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_nothing_is_overwritten_unless_forced(folder: Path) -> None:
    pki.issue(folder, "agent", "host-1", [], NOW)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    for refused in (
        lambda: pki.init(folder, NOW),
        lambda: pki.issue(folder, "agent", "host-1", [], NOW),
        # Also when somebody else makes the file between the look and the write.
        lambda: pki._write(folder / "ca.key", b"x", 0o600, force=False),
    ):
        with pytest.raises(pki.PkiError, match="--force"):
            refused()
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    pki.issue(folder, "controller", "host-1", [], NOW)  # another role is another certificate
    pki.issue(folder, "agent", "host-1", [], NOW, force=True)
    assert (folder / "agent-host-1.key").read_bytes() != before[folder / "agent-host-1.key"]


@pytest.mark.parametrize(
    "name", ["", "../x", "a/b", "a b", "héros", "-" * 64, "a..b", "*.example", "x" * 300]
)
def test_a_name_that_is_none_is_refused(folder: Path, name: str) -> None:
    with pytest.raises(pki.PkiError, match="neither a host name nor an IP address"):
        pki.issue(folder, "agent", name, [], NOW)
    with pytest.raises(pki.PkiError, match="neither"):
        pki.issue(folder, "agent", "good", [name], NOW)
    assert not list(folder.glob("agent-*"))


def test_a_foreign_key_is_noticed(folder: Path, tmp_path: Path) -> None:
    pki.init(tmp_path / "two", NOW)
    (tmp_path / "two" / "ca.key").replace(folder / "ca.key")
    with pytest.raises(pki.PkiError, match=r"ca.key is not the key of ca.pem"):
        pki.issue(folder, "agent", "host-1", [], NOW)
    (folder / "ca.key").write_text("nothing")
    with pytest.raises(pki.PkiError, match="cannot use the CA"):
        pki.issue(folder, "agent", "host-1", [], NOW)


def test_the_commands(tmp_path: Path) -> None:
    folder = tmp_path / "pki"
    refused = run("issue", "host-1", "--dir", folder)
    assert (refused.exit_code, refused.exception.__class__) == (1, SystemExit)
    assert "escra-controller pki init" in refused.output
    assert "until 20" in run("init", "--dir", folder).output
    said = run("issue", "--controller", "ctl.example", "--ip", "10.0.0.1", "--dir", folder).output
    for line in (
        f"{folder}/controller-ctl.example.key -> /etc/escra/controller.key",
        "LoadCredential=controller.key:/etc/escra/controller.key",
        'key = "controller.key"',
    ):
        assert line in said
    made = json.loads(run("issue", "host-1", "--json", "--days", 30, "--dir", folder).output)
    assert Path(made["cert"]).is_file()
    assert made["not_after"] - made["not_before"] == 31 * 86_400
    again = run("issue", "host-1", "--dir", folder)
    assert again.exit_code == 1
    assert "--force" in again.output
    assert 'key = "/etc/escra/agent.key"' in run("issue", "host-1", "--force", "--dir", folder).output
    rows = json.loads(run("list", "--json", "--dir", folder).output)
    assert [(row["name"], row["role"], row["state"]) for row in rows] == [
        ("ctl.example", "controller", "valid"),
        ("host-1", "agent", "replaced"),
        ("host-1", "agent", "valid"),
    ]
    assert rows[1]["serial"] == made["serial"]
    assert "ctl.example  controller  20" in run("list", "--dir", folder).output
    assert run("issue", "host-2", "--days", 398, "--dir", folder).exit_code == 2


def test_without_the_library_it_says_how_to_get_it(tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['cryptography'] = None; from escra_controller.daemon import main; main()"
    )
    command = [sys.executable, "-c", program, "pki", "init", "--dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "pip install 'escra[pki]'" in done.stderr
