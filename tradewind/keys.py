"""EDGE: certificates and token keys as values, read from files and read again when these change.

The `run` files load a `Watched` before they start, and start one `watch` for each; what comes out goes to the rooms
between two turns. A file that cannot be used (half written, of another pair, expired) leaves the last good value in
force and is tried again at every look, so the order in which certificate and key are replaced does not matter.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import os
import stat
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tradewind.contract.token import Key, KeyFormatError, parse_keys
from tradewind.quic.config import Certificate, load_certificate

DEVELOPMENT_DAYS = 13
"""Browsers accept a certificate by its hash for at most 14 days."""
DEVELOPMENT_ROTATE_S = 10 * 86_400.0
CLOCK_SKEW = dt.timedelta(hours=1)
MAX_FILE_BYTES = 2**20
SEED_FILE = "placement.key"
SEED_BYTES = 32
KEY_FILE_ENDINGS = (".jwk", ".json")

T = TypeVar("T")


class KeyMaterialError(Exception):
    """A file of keys or certificates cannot be used; says which and why, and never quotes it."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a server proves itself with."""

    certificate: Certificate
    sha256: str
    """Hash of the certificate in hexadecimal, as browsers want it for serverCertificateHashes."""
    not_after: float
    """Wall seconds."""


class Watched(Generic[T]):
    """A value read from files. `files` lists them, `read` makes the value; `max_age_s` has it made anew regardless."""

    __slots__ = ("_files", "_made_at", "_max_age_s", "_read", "_stamp")

    def __init__(
        self, files: Callable[[], Sequence[Path]], read: Callable[[float], T], max_age_s: float | None = None
    ) -> None:
        self._files = files
        self._read = read
        self._max_age_s = max_age_s
        self._stamp: object = None
        self._made_at = 0.0

    def load(self, wall_now: float) -> T:
        """Read the files. Raises KeyMaterialError."""
        # Stamped before reading: what changes meanwhile is seen at the next look.
        stamp = self._look()
        value = self._read(wall_now)
        self._stamp, self._made_at = stamp, wall_now
        return value

    def poll(self, wall_now: float) -> T | None:
        """A new value where the files have changed since the last good one, or it is old. Raises KeyMaterialError."""
        aged = self._max_age_s is not None and wall_now - self._made_at >= self._max_age_s
        return self.load(wall_now) if aged or self._look() != self._stamp else None

    def _look(self) -> object:
        """What changes with a file: the inode of one moved into place, the time or size of one written over."""
        stamps: list[object] = []
        for file in self._files():
            try:
                status = file.stat()
            except OSError:
                stamps.append((file, None))
            else:
                stamps.append((file, (status.st_ino, status.st_mtime_ns, status.st_size)))
        return stamps


def server_certificate(cert: str | None, key: str | None, hosts: Iterable[str] = ()) -> Watched[Credentials]:
    """The server's certificate from two PEM files; without them one made here for `hosts`, anew every ten days."""
    if cert is None or key is None:
        names = tuple(dict.fromkeys(("localhost", "127.0.0.1", "::1", *hosts)))
        return Watched(lambda: (), lambda wall_now: development_credentials(names, wall_now), DEVELOPMENT_ROTATE_S)
    cert_file, key_file = Path(cert), Path(key)
    return Watched(
        lambda: (cert_file, key_file),
        lambda wall_now: parse_credentials(read_file(cert_file), read_file(key_file), f"{cert}, {key}", wall_now),
    )


def token_keys(paths: Sequence[str]) -> Watched[tuple[Key, ...]]:
    """The keys that access tokens are checked with: files, and directories of *.jwk and *.json."""

    def files() -> list[Path]:
        return [file for path in paths for file in _key_files(Path(path))]

    return Watched(files, lambda _wall_now: _load_keys(files()))


def placement_seed(directory: str | None) -> bytes:
    """The 32 bytes with which this relay signs placement tokens: from `directory`, or made there and kept.

    Without a directory they last as long as the process. Raises KeyMaterialError.
    """
    if directory is None:
        return os.urandom(SEED_BYTES)
    file = Path(directory) / SEED_FILE
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not file.exists():
            _make_seed(file)
        mode = stat.S_IMODE(file.stat().st_mode)
    except OSError as error:
        raise KeyMaterialError(f"{file}: {error.strerror}") from error
    if mode & 0o077:
        raise KeyMaterialError(f"{file}: others may read or change it (mode {mode:o}); 600 is right")
    seed = read_file(file)
    if len(seed) != SEED_BYTES:
        raise KeyMaterialError(f"{file}: not {SEED_BYTES} bytes; without it a new one is made")
    return seed


def read_file(file: Path, most_bytes: int = MAX_FILE_BYTES) -> bytes:
    """All of a file. Raises KeyMaterialError where it cannot be read or is larger."""
    try:
        with file.open("rb") as opened:
            data = opened.read(most_bytes + 1)
    except OSError as error:
        raise KeyMaterialError(f"{file}: {error.strerror}") from error
    if len(data) > most_bytes:
        raise KeyMaterialError(f"{file}: more than {most_bytes} bytes")
    return data


async def watch(
    watched: Watched[T], poll_s: float, apply: Callable[[T], None], failed: Callable[[KeyMaterialError], None]
) -> None:
    """Look at the files every `poll_s`, for ever. `apply` and `failed` run between turns; a failure is told once."""
    last_failure = ""
    while True:
        await trio.sleep(poll_s)
        try:
            # In a thread: a file on a network that hangs must not hold up the loop.
            value = await trio.to_thread.run_sync(watched.poll, time.time())
        except KeyMaterialError as error:
            if str(error) != last_failure:
                failed(error)
            last_failure = str(error)
        else:
            if value is not None:
                last_failure = ""
                apply(value)


def parse_credentials(chain_pem: bytes, key_pem: bytes, name: str, wall_now: float) -> Credentials:
    """Check a chain and a key: they parse, belong together and are valid now. Raises KeyMaterialError naming `name`."""
    try:
        certificate = load_certificate(chain_pem, key_pem)
    except (ValueError, TypeError) as error:
        raise KeyMaterialError(f"{name}: not a PEM certificate chain and its unencrypted private key") from error
    credentials = _credentials(certificate)
    leaf = certificate.chain[0]
    if leaf.public_key() != certificate.key.public_key():
        raise KeyMaterialError(f"{name}: the key is not the certificate's")
    if wall_now >= credentials.not_after:
        raise KeyMaterialError(f"{name}: the certificate ended {leaf.not_valid_after_utc:%Y-%m-%d %H:%M} UTC")
    if wall_now < (leaf.not_valid_before_utc - CLOCK_SKEW).timestamp():
        raise KeyMaterialError(f"{name}: the certificate begins {leaf.not_valid_before_utc:%Y-%m-%d %H:%M} UTC")
    return credentials


def development_credentials(hosts: Sequence[str], wall_now: float) -> Credentials:
    """Make a self-signed P-256 certificate for 13 days that browsers accept by its hash."""
    key = ec.generate_private_key(ec.SECP256R1())
    begins = dt.datetime.fromtimestamp(wall_now, dt.UTC) - CLOCK_SKEW
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tradewind development")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + dt.timedelta(days=DEVELOPMENT_DAYS))
        .add_extension(x509.SubjectAlternativeName([_general_name(host) for host in hosts]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return _credentials(
        load_certificate(
            certificate.public_bytes(serialization.Encoding.PEM),
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ),
        )
    )


def credentials_pem(credentials: Credentials) -> tuple[bytes, bytes]:
    """The certificate and its key, as files have them."""
    certificate = credentials.certificate
    return (
        b"".join(one.public_bytes(serialization.Encoding.PEM) for one in certificate.chain),
        certificate.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    )


def _credentials(certificate: Certificate) -> Credentials:
    leaf = certificate.chain[0]
    return Credentials(certificate, leaf.fingerprint(hashes.SHA256()).hex(), leaf.not_valid_after_utc.timestamp())


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _make_seed(file: Path) -> None:
    """Write a seed that is there whole or not at all; where somebody else was quicker, theirs counts."""
    made = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(os.urandom(SEED_BYTES))
            opened.flush()
            os.fsync(opened.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(made, file)
    finally:
        made.unlink()


def _key_files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.suffix in KEY_FILE_ENDINGS)
    return [path]


def _load_keys(files: Iterable[Path]) -> tuple[Key, ...]:
    keys: dict[str | None, Key] = {}
    for file in files:
        try:
            found = parse_keys(read_file(file).decode(), default_id=file.stem)
        except (KeyFormatError, UnicodeDecodeError) as error:
            reason = error if isinstance(error, KeyFormatError) else "not UTF-8"
            raise KeyMaterialError(f"{file}: {reason}") from error
        for key in found:
            if key.id in keys:
                raise KeyMaterialError(f"{file}: another key has the kid {key.id!r} too")
            keys[key.id] = key
    return tuple(keys.values())
