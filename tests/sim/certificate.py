"""A relay's certificate for tests: Ed25519, whose signatures have one length, so that runs can be repeated."""

from __future__ import annotations

import datetime as dt

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

from tradewind.quic.config import Certificate

_KEY = Ed25519PrivateKey.from_private_bytes(b"a key that every reader may know")
_NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "relay.test")])
_LEAF = (
    x509.CertificateBuilder()
    .subject_name(_NAME)
    .issuer_name(_NAME)
    .public_key(_KEY.public_key())
    .serial_number(1)
    .not_valid_before(dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
    .not_valid_after(dt.datetime(2120, 1, 1, tzinfo=dt.UTC))
    .sign(_KEY, None)
)
CERTIFICATE = Certificate(chain=(_LEAF,), key=_KEY)
SHA256 = _LEAF.fingerprint(hashes.SHA256())
