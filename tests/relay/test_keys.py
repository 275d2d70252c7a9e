"""Key files: read as values, read again when they change, and the last good value kept when a file is no good."""

from __future__ import annotations

import datetime as dt
import json
import os
from pathlib import Path

import pytest
import trio
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from trio.testing import MockClock

from tradewind import keys
from tradewind.keys import (
    DEVELOPMENT_ROTATE_S,
    Credentials,
    KeyMaterialError,
    Watched,
    development_credentials,
    server_certificate,
    token_keys,
    watch,
)

NOW = dt.datetime(2026, 11, 22, 12, tzinfo=dt.UTC).timestamp()
SECRET = {"kty": "oct", "alg": "HS256", "k": "c" * 43, "key_ops": ["sign", "verify"]}


@pytest.fixture(scope="module")
def pairs() -> list[tuple[bytes, bytes]]:
    """Two certificates with their keys, and one that has ended."""
    authority = trustme.CA()
    ended = dt.datetime.now(dt.UTC) - dt.timedelta(minutes=5)
    issued = [authority.issue_cert("relay.example"), authority.issue_cert("relay.example")]
    issued.append(authority.issue_cert("relay.example", not_before=ended - dt.timedelta(days=1), not_after=ended))
    return [(b"".join(blob.bytes() for blob in i.cert_chain_pems), i.private_key_pem.bytes()) for i in issued]


def write(directory: Path, pair: tuple[bytes, bytes]) -> tuple[str, str]:
    """Put both files in place as an operator's tool does: moved over the old ones."""
    for name, data in zip(("cert.pem", "key.pem"), pair, strict=True):
        (directory / f".{name}").write_bytes(data)
        (directory / f".{name}").replace(directory / name)
    return str(directory / "cert.pem"), str(directory / "key.pem")


def wall_now() -> float:
    return dt.datetime.now(dt.UTC).timestamp()


def test_a_development_certificate_is_what_browsers_accept_by_hash() -> None:
    made = development_credentials(("localhost", "127.0.0.1", "::1", "demo.example"), NOW)
    leaf = made.certificate.chain[0]
    assert leaf.not_valid_before_utc.timestamp() < NOW
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc <= dt.timedelta(days=13)
    assert made.not_after - NOW > DEVELOPMENT_ROTATE_S + 2 * 86_400
    assert isinstance(leaf.public_key(), ec.EllipticCurvePublicKey)
    assert isinstance(leaf.public_key().curve, ec.SECP256R1)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in names] == ["localhost", "127.0.0.1", "::1", "demo.example"]
    assert len(bytes.fromhex(made.sha256)) == 32


def test_a_development_certificate_is_made_anew_after_ten_days() -> None:
    watched = server_certificate(None, None, ["192.0.2.7"])
    first = watched.load(NOW)
    assert watched.poll(NOW + DEVELOPMENT_ROTATE_S - 1) is None
    second = watched.poll(NOW + DEVELOPMENT_ROTATE_S)
    assert second is not None
    assert second.sha256 != first.sha256
    assert watched.poll(NOW + DEVELOPMENT_ROTATE_S + 1) is None


def test_a_replaced_pair_is_seen(tmp_path: Path, pairs: list[tuple[bytes, bytes]]) -> None:
    watched = server_certificate(*write(tmp_path, pairs[0]))
    first = watched.load(wall_now())
    assert watched.poll(wall_now()) is None
    write(tmp_path, pairs[1])
    second = watched.poll(wall_now())
    assert second is not None
    assert second.sha256 != first.sha256
    assert watched.poll(wall_now()) is None


def test_half_a_replacement_is_no_good_until_the_other_half_comes(
    tmp_path: Path, pairs: list[tuple[bytes, bytes]]
) -> None:
    cert, key = write(tmp_path, pairs[0])
    watched = server_certificate(cert, key)
    watched.load(wall_now())
    Path(cert).write_bytes(pairs[1][0])
    for _ in range(2):
        with pytest.raises(KeyMaterialError, match=r"the key is not the certificate's"):
            watched.poll(wall_now())
    Path(key).write_bytes(pairs[1][1])
    assert watched.poll(wall_now()) is not None


def test_what_is_wrong_with_a_pair_is_said_by_name(tmp_path: Path, pairs: list[tuple[bytes, bytes]]) -> None:
    cert, key = write(tmp_path, pairs[2])
    with pytest.raises(KeyMaterialError, match=r"cert\.pem, .*key\.pem: the certificate ended"):
        server_certificate(cert, key).load(wall_now())
    cert, key = write(tmp_path, pairs[0])
    with pytest.raises(KeyMaterialError, match="the certificate begins"):
        server_certificate(cert, key).load(0.0)
    for pair in ((b"", pairs[0][1]), (pairs[0][0], b"rubbish"), (b"\xff", b"\xff")):
        with pytest.raises(KeyMaterialError, match="not a PEM"):
            server_certificate(*write(tmp_path, pair)).load(wall_now())
    Path(key).unlink()
    with pytest.raises(KeyMaterialError, match="No such file"):
        server_certificate(cert, key).load(wall_now())


def test_a_file_has_a_limit(tmp_path: Path) -> None:
    big = tmp_path / "big.jwk"
    big.write_bytes(b" " * (keys.MAX_FILE_BYTES + 1))
    with pytest.raises(KeyMaterialError, match="more than"):
        token_keys([str(big)]).load(NOW)


def test_token_keys_come_from_files_and_directories(tmp_path: Path) -> None:
    (tmp_path / "shop.jwk").write_text(json.dumps(SECRET))
    (tmp_path / "set.json").write_text(json.dumps({"keys": [{**SECRET, "kid": "a"}, {**SECRET, "kid": "b"}]}))
    (tmp_path / "notes.txt").write_text("not a key")
    single = tmp_path / "single"
    single.write_text(json.dumps(SECRET))
    watched = token_keys([str(tmp_path), str(single)])
    assert [key.id for key in watched.load(NOW)] == ["a", "b", "shop", "single"]
    assert watched.poll(NOW) is None
    (tmp_path / "new.jwk").write_text(json.dumps(SECRET))
    found = watched.poll(NOW)
    assert found is not None
    assert [key.id for key in found] == ["new", "a", "b", "shop", "single"]
    (tmp_path / "shop.jwk").unlink()
    found = watched.poll(NOW)
    assert found is not None
    assert len(found) == 4


def test_a_symlinked_directory_that_is_switched_is_seen(tmp_path: Path) -> None:
    """As Kubernetes mounts secrets."""
    for name, kid in (("one", "a"), ("two", "b")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "key.jwk").write_text(json.dumps({**SECRET, "kid": kid}))
    link = tmp_path / "data"
    link.symlink_to("one")
    watched = token_keys([str(link / "key.jwk")])
    assert watched.load(NOW)[0].id == "a"
    (tmp_path / "fresh").symlink_to("two")
    (tmp_path / "fresh").rename(link)
    found = watched.poll(NOW)
    assert found is not None
    assert found[0].id == "b"


def test_bad_token_keys_are_told_by_name_and_not_quoted(tmp_path: Path) -> None:
    for name, text, says in (
        ("a.jwk", "{}", "alg"),
        ("b.jwk", "\xff", "neither JSON"),
        ("c.jwk", json.dumps({"keys": [{**SECRET, "kid": "x"}] * 2}), "another key has the kid 'x'"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(KeyMaterialError, match=rf"{name}: .*{says}") as caught:
            token_keys([str(tmp_path / name)]).load(NOW)
        assert "ccc" not in str(caught.value)
    (tmp_path / "d.jwk").write_bytes(b"\xff\xfe")
    with pytest.raises(KeyMaterialError, match="not UTF-8"):
        token_keys([str(tmp_path / "d.jwk")]).load(NOW)
    with pytest.raises(KeyMaterialError, match="No such file"):
        token_keys([str(tmp_path / "missing")]).load(NOW)


async def test_watching_tells_changes_and_each_failure_once(tmp_path: Path, autojump_clock: MockClock) -> None:
    file = tmp_path / "value"
    looks = 0

    def read(_wall_now: float) -> int:
        nonlocal looks
        looks += 1
        try:
            return int(file.read_text())
        except ValueError as error:
            raise KeyMaterialError(file.read_text()) from error

    def change(text: str, moment: int) -> None:
        # Moved into place whole: the thread that looks must not see half a change.
        fresh = tmp_path / "fresh"
        fresh.write_text(text)
        os.utime(fresh, ns=(0, moment))
        fresh.replace(file)

    change("1", 1)
    watched = Watched(lambda: (file,), read)
    watched.load(NOW)
    tell, told = trio.open_memory_channel[int | str](10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch, watched, 5.0, tell.send_nowait, lambda error: tell.send_nowait(str(error)))
        change("2", 2)
        assert await told.receive() == 2
        change("bad", 3)
        assert await told.receive() == "bad"
        while looks < 6:  # noqa: ASYNC110 - that nothing is told of these looks is the point
            await trio.sleep(5.0)
        change("worse", 4)
        assert await told.receive() == "worse"
        change("3", 5)
        assert await told.receive() == 3
        nursery.cancel_scope.cancel()
    assert told.statistics().current_buffer_used == 0


def test_credentials_do_not_print_their_key() -> None:
    made = development_credentials(("localhost",), NOW)
    assert isinstance(made, Credentials)
    assert "EllipticCurvePrivateKey" not in repr(made)
