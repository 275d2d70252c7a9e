"""`tradewind cert`: what it writes, what it refuses, and that the nodes of a mesh take it."""

from __future__ import annotations

import json
import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from control.cli.main import tradewind
from tradewind.contract.identity import (
    Authority,
    NodeIdentity,
    parse_authority,
    parse_certificate,
    parse_pem_certificate,
    parse_pem_key,
    public_key,
    validity,
)
from tradewind.contract.ids import Role
from tradewind.contract.issuing import (
    Order,
    Terms,
    certificate_pem,
    generate_key,
    issue,
    key_pem,
    make_authority,
    order_of,
)
from tradewind.quic.config import load_certificate

DAY_S = 86_400


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(tradewind, ["cert", *map(str, arguments)])


def done(*arguments: str | Path) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.output


def identity(file: Path) -> NodeIdentity:
    return parse_certificate(parse_pem_certificate(file.read_bytes()))


def mode(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


def shown(*arguments: str | Path) -> Any:
    return json.loads(run("show", *arguments, "-o", "json").output)


def backdate(pki: Path, file: Path, ends_in_s: float) -> None:
    """Make a certificate that ends then, as if it had been issued some time ago."""
    old = parse_pem_certificate(file.read_bytes())
    (ca,) = parse_authority((pki / "ca.crt").read_bytes()).certificates
    ca_key = parse_pem_key((pki / "ca.key").read_bytes())
    terms = Terms(1, time.time() - 60 + min(0, ends_in_s), time.time() + ends_in_s)
    file.write_bytes(certificate_pem(issue(order_of(old), public_key(old), ca, ca_key, terms)))


@pytest.fixture
def pki(tmp_path: Path) -> Path:
    directory = tmp_path / "pki"
    done("ca", "--mesh", "shop", "-o", directory)
    return directory


@pytest.fixture
def relay(pki: Path) -> Path:
    done(
        "issue",
        "--role",
        "relay",
        "--id",
        "fra-1",
        "--region",
        "fra",
        "--name",
        "r.example",
        "--name",
        "::1",
        "-o",
        pki,
    )
    return pki / "fra-1.crt"


def test_an_authority(pki: Path) -> None:
    authority = parse_authority((pki / "ca.crt").read_bytes())
    assert authority.mesh == "shop"
    assert public_key(authority.certificates[0]) == parse_pem_key((pki / "ca.key").read_bytes()).public_key()
    assert mode(pki / "ca.key") == 0o600
    assert mode(pki / "ca.crt") == 0o644
    begins, ends = validity(authority.certificates[0])
    assert abs(begins - time.time() + 300) < 60
    assert abs(ends - time.time() - 3650 * DAY_S) < 60


def test_nothing_is_written_over(pki: Path, relay: Path) -> None:
    before = {file: file.read_bytes() for file in pki.iterdir()}
    assert len(before) == 4
    again = run("ca", "--mesh", "shop", "-o", pki)
    assert again.exit_code == 1
    assert "is there already" in again.output
    assert run("issue", "--role", "relay", "--id", "fra-1", "--region", "ams", "-o", pki).exit_code == 1
    # Half of a pair is enough to leave it alone.
    (pki / "ams-1.crt").write_text("mine")
    assert run("issue", "--role", "relay", "--id", "ams-1", "--region", "ams", "-o", pki).exit_code == 1
    assert not (pki / "ams-1.key").exists()
    assert {file: file.read_bytes() for file in before} == before


def test_a_node(pki: Path, relay: Path, tmp_path: Path) -> None:
    der = parse_pem_certificate(relay.read_bytes())
    found = parse_authority((pki / "ca.crt").read_bytes()).verify(der, time.time(), role=Role.RELAY, id="fra-1")
    assert found.uri == "tradewind://shop/relay/fra/fra-1"
    assert order_of(der) == Order("shop", Role.RELAY, "fra", "fra-1", ("r.example", "::1"))
    assert mode(relay.with_suffix(".key")) == 0o600
    load_certificate(relay.read_bytes(), relay.with_suffix(".key").read_bytes())
    assert public_key(der) == parse_pem_key(relay.with_suffix(".key").read_bytes()).public_key()
    elsewhere = tmp_path / "new/place"
    output = done(
        "issue", "--role", "controller", "--id", "a", "--region", "fra", "--ca", pki, "--days", "7", "-o", elsewhere
    )
    assert "tradewind://shop/controller/fra/a, good until" in output
    assert abs(identity(elsewhere / "a.crt").not_after - time.time() - 7 * DAY_S) < 60
    assert sorted(file.name for file in elsewhere.iterdir()) == ["a.crt", "a.key"]


def test_renewing(pki: Path, relay: Path) -> None:
    backdate(pki, relay, 5 * DAY_S)
    key = relay.with_suffix(".key")
    key.chmod(0o640)
    old, old_key, order = identity(relay), key.read_bytes(), order_of(parse_pem_certificate(relay.read_bytes()))
    done("renew", relay, "--days", "30")
    new = identity(relay)
    assert new.uri == old.uri
    assert order_of(new.der) == order
    assert new.not_after > old.not_after + 20 * DAY_S
    assert key.read_bytes() != old_key
    assert public_key(new.der) == parse_pem_key(key.read_bytes()).public_key() != public_key(old.der)
    assert mode(key) == 0o640
    assert sorted(file.name for file in pki.iterdir()) == ["ca.crt", "ca.key", "fra-1.crt", "fra-1.key"]
    parse_authority((pki / "ca.crt").read_bytes()).verify(new.der, time.time())


@pytest.mark.root
def test_a_renewed_file_stays_its_owners(relay: Path) -> None:
    key = relay.with_suffix(".key")
    os.chown(key, 1234, 1235)
    done("renew", relay)
    assert (key.stat().st_uid, key.stat().st_gid, mode(key)) == (1234, 1235, 0o600)


def test_renewing_for_as_long_as_before(relay: Path) -> None:
    done("renew", relay)
    assert abs(identity(relay).not_after - time.time() - 90 * DAY_S) < 60


def test_renewing_only_what_ends_soon(pki: Path, relay: Path) -> None:
    before = relay.read_bytes()
    assert "left as it is" in done("renew", relay, "--if-expiring", "30")
    assert relay.read_bytes() == before
    done("renew", relay, "--if-expiring", "91")
    assert relay.read_bytes() != before
    backdate(pki, relay, -100)
    done("renew", relay, "--if-expiring", "1")
    assert identity(relay).not_after > time.time() + DAY_S - 60


def test_renewing_what_is_another_mesh_s(pki: Path, relay: Path, tmp_path: Path) -> None:
    done("ca", "--mesh", "shop", "-o", tmp_path / "other")
    before = relay.read_bytes()
    result = run("renew", relay, "--ca", tmp_path / "other")
    assert result.exit_code == 1
    assert "unknown-authority" in result.output
    assert relay.read_bytes() == before
    assert run("renew", pki / "ca.crt").exit_code == 1


def test_an_authority_that_takes_over(pki: Path, relay: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    done("ca", "--mesh", "shop", "--after", pki / "ca.crt", "-o", new)
    both = parse_authority((new / "ca.crt").read_bytes())
    (old,) = parse_authority((pki / "ca.crt").read_bytes()).certificates
    assert both.certificates[1:] == (old,)
    both.verify(parse_pem_certificate(relay.read_bytes()), time.time())
    done("renew", relay, "--ca", new)
    der = parse_pem_certificate(relay.read_bytes())
    Authority(both.certificates[:1]).verify(der, time.time())
    assert len(run("show", new / "ca.crt", "-o", "json").output.splitlines()) == 2
    result = run("ca", "--mesh", "else", "--after", pki / "ca.crt", "-o", tmp_path / "else")
    assert result.exit_code == 1
    assert not (tmp_path / "else").exists()


def test_no_certificate_outlives_its_authority(tmp_path: Path) -> None:
    done("ca", "--mesh", "shop", "--days", "3", "-o", tmp_path)
    result = run("issue", "--role", "relay", "--id", "a", "--region", "fra", "-o", tmp_path)
    assert result.exit_code == 0
    assert "the authority ends" in result.output
    (authority,) = parse_authority((tmp_path / "ca.crt").read_bytes()).certificates
    assert identity(tmp_path / "a.crt").not_after == validity(authority)[1]


def test_an_authority_that_has_ended(tmp_path: Path) -> None:
    key = generate_key()
    terms = Terms(1, time.time() - 10 * DAY_S, time.time() - 1)
    (tmp_path / "ca.crt").write_bytes(certificate_pem(make_authority("shop", key, terms)))
    (tmp_path / "ca.key").write_bytes(key_pem(key))
    result = run("issue", "--role", "relay", "--id", "a", "--region", "fra", "-o", tmp_path)
    assert result.exit_code == 1
    assert "make another one" in result.output
    assert not (tmp_path / "a.key").exists()


def test_showing(pki: Path, relay: Path) -> None:
    found = shown(relay)
    assert {
        name: found[name] for name in ("kind", "mesh", "role", "region", "id", "names", "server_name", "verdict")
    } == {
        "kind": "node",
        "mesh": "shop",
        "role": "relay",
        "region": "fra",
        "id": "fra-1",
        "names": ["r.example", "::1"],
        "server_name": "fra-1.shop.tradewind.internal",
        "verdict": "not checked (no --ca)",
    }
    assert 89.9 < found["days_left"] <= 90
    assert found["not_after"] == identity(relay).not_after
    assert shown(relay, "--ca", pki / "ca.crt")["verdict"] == "good"
    authority = shown(pki / "ca.crt")
    assert (authority["kind"], authority["mesh"]) == ("authority", "shop")
    table = done("show", relay)
    assert ["role", "relay"] in [line.split() for line in table.splitlines()]
    assert "UTC" in table


def test_showing_what_no_node_would_take(pki: Path, relay: Path, tmp_path: Path) -> None:
    done("ca", "--mesh", "shop", "-o", tmp_path / "other")
    result = run("show", relay, "--ca", tmp_path / "other/ca.crt")
    assert result.exit_code == 1
    assert "unknown-authority" in result.output
    backdate(pki, relay, -100)
    assert "expired" in shown(relay, "--ca", pki / "ca.crt")["verdict"]
    assert run("show", relay, "--ca", pki / "ca.crt").exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("ca", "--mesh", "Shop", "-o", "{tmp}/x"), 2, "a-z"),
        (("ca", "--mesh", "shop", "--days", "0", "-o", "{tmp}/x"), 2, "range"),
        (("ca",), 2, "--mesh"),
        (("ca", "--mesh", "shop", "-o", "{text}/x"), 1, "Not a directory"),
        (("issue", "--role", "king", "--id", "a", "--region", "b", "-o", "{pki}"), 2, "king"),
        (("issue", "--role", "relay", "--id", "A", "--region", "b", "-o", "{pki}"), 2, "a-z"),
        (("issue", "--role", "relay", "--id", "../a", "--region", "b", "-o", "{pki}"), 2, "a-z"),
        (("issue", "--role", "relay", "--id", "a", "--region", "b", "--name", "a b", "-o", "{pki}"), 2, "no host"),
        (("issue", "--role", "relay", "--id", "a", "--region", "b", "-o", "{tmp}/x"), 1, "No such file"),
        (("issue", "--role", "relay", "--id", "a", "--region", "b", "-o", "{mixed}"), 1, "not the key of"),
        (("renew", "{tmp}/missing.crt"), 2, "does not exist"),
        (("renew", "{text}"), 1, "not a PEM certificate"),
        (("show", "{text}"), 1, "not a PEM certificate"),
        (("show", "{pki}/ca.crt", "--ca", "{pki}/ca.crt"), 2, "authority's"),
        (("show", "{pki}/ca.key"), 1, "not a PEM certificate"),
    ],
)
def test_mistakes_are_explained(pki: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, says: str) -> None:
    text, mixed = tmp_path / "text", tmp_path / "mixed"
    text.write_text("no certificate")
    done("ca", "--mesh", "shop", "-o", mixed)
    (mixed / "ca.crt").write_bytes((pki / "ca.crt").read_bytes())
    places = {"tmp": tmp_path, "pki": pki, "text": text, "mixed": mixed}
    result = run(*(argument.format(**places) for argument in arguments))
    assert (result.exit_code, says in result.output) == (code, True), result.output
    assert "PRIVATE" not in result.output
    assert not (tmp_path / "x/ca.crt").exists()
