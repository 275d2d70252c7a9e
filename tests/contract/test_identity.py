"""Who a node is: what its certificate says, and every way in which it is not believed."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.contract.mesh import CONTROLLER, DAY_S, MESH, NOW, RELAY, key, make_mesh
from tradewind.contract.identity import (
    CLOCK_SKEW_S,
    MAX_CERTIFICATE_BYTES,
    Authority,
    IdentityError,
    Reason,
    check_signature,
    parse_authority,
    parse_certificate,
    parse_pem_certificate,
    parse_pem_key,
    server_name,
    sign,
    sign_table,
    verify_table,
)
from tradewind.contract.ids import Role
from tradewind.contract.issuing import (
    Order,
    OrderError,
    Terms,
    certificate_pem,
    generate_key,
    issue,
    key_pem,
    make_authority,
    order_of,
)


def refused(act: Callable[..., object], *arguments: Any, **named: Any) -> Reason:
    with pytest.raises(IdentityError) as caught:
        act(*arguments, **named)
    return caught.value.reason


BOTH = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
MESH_NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tradewind mesh shop")])


def forged(
    uris: tuple[str, ...] = ("tradewind://shop/relay/fra/fra-1",),
    *,
    usages: tuple[ObjectIdentifier, ...] | None = BOTH,
    ca: bool = False,
    path_length: int | None = None,
    digital_signature: bool = True,
    key_cert_sign: bool = False,
    extra: x509.ExtensionType | None = None,
    signer: Any = None,
    subject_key: Any = None,
    issuer: x509.Name = MESH_NAME,
    subject: x509.Name = MESH_NAME,
) -> bytes:
    """A certificate with anything in it; signed by the mesh's authority unless said otherwise."""
    flags = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "crl_sign"),
        False,
    )
    flags["key_cert_sign"] = key_cert_sign
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key((subject_key or key(50)).public_key())
        .serial_number(5)
        .not_valid_before(dt.datetime.fromtimestamp(NOW - 300, dt.UTC))
        .not_valid_after(dt.datetime.fromtimestamp(NOW + DAY_S, dt.UTC))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=path_length), critical=True)
        .add_extension(
            x509.KeyUsage(digital_signature=digital_signature, encipher_only=False, decipher_only=False, **flags),
            critical=True,
        )
    )
    if uris:
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris])
        builder = builder.add_extension(names, critical=False)
    if usages:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    if extra is not None:
        builder = builder.add_extension(extra, critical=True)
    return builder.sign(signer or MESH.key, hashes.SHA256()).public_bytes(Encoding.DER)


def test_what_a_certificate_says() -> None:
    found = MESH.authority.verify(RELAY.der, NOW, role=Role.RELAY, id="fra-1")
    assert (found.mesh, found.role, found.region, found.id) == ("shop", Role.RELAY, "fra", "fra-1")
    assert (found.not_before, found.not_after) == (NOW - 300, NOW + 90 * DAY_S)
    assert found.uri == "tradewind://shop/relay/fra/fra-1"
    assert found == parse_certificate(RELAY.der)
    assert found.der == RELAY.der
    assert MESH.authority.verify(CONTROLLER.der, NOW).role is Role.CONTROLLER


def test_the_forger_can_do_it_right() -> None:
    """Else the refusals below would say nothing."""
    assert MESH.authority.verify(forged(), NOW).id == "fra-1"


def test_nothing_shown() -> None:
    assert refused(MESH.authority.verify, b"", NOW) is Reason.NONE
    assert refused(parse_certificate, b"") is Reason.NONE
    assert refused(Authority, []) is Reason.NONE


def test_who_signed_it() -> None:
    other = make_mesh(2)
    verify = MESH.authority.verify
    assert refused(verify, other.node().der, NOW) is Reason.UNKNOWN_AUTHORITY
    assert refused(verify, make_mesh(2, "else").node().der, NOW) is Reason.UNKNOWN_AUTHORITY
    assert refused(verify, forged(signer=key(50)), NOW) is Reason.SELF_SIGNED
    stranger = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "stranger")])
    assert refused(verify, forged(signer=key(50), issuer=stranger, subject=stranger), NOW) is Reason.SELF_SIGNED
    assert refused(verify, forged(issuer=stranger), NOW) is Reason.UNKNOWN_AUTHORITY
    # A node is no authority, even where its name is one.
    below = forged(signer=RELAY.key, issuer=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fra-1")]))
    assert refused(verify, below, NOW) is Reason.UNKNOWN_AUTHORITY
    assert refused(Authority, [RELAY.der]) is Reason.MALFORMED
    # Nor is the authority a node.
    assert refused(verify, MESH.der, NOW) is Reason.MALFORMED


def test_what_the_authority_did_not_sign() -> None:
    place = RELAY.der.index(b"relay/fra/fra-1")
    assert refused(
        MESH.authority.verify, RELAY.der[: place - 1] + b"/relay/fra/fra-2" + RELAY.der[place + 15 :], NOW
    ) is (Reason.BAD_SIGNATURE)


@pytest.mark.parametrize(
    ("wall_s", "reason"),
    [
        (-300 - CLOCK_SKEW_S, None),
        (-301 - CLOCK_SKEW_S, Reason.NOT_YET_VALID),
        (90 * DAY_S + CLOCK_SKEW_S, None),
        (90 * DAY_S + CLOCK_SKEW_S + 1, Reason.EXPIRED),
    ],
)
def test_its_time(wall_s: float, reason: Reason | None) -> None:
    if reason is None:
        MESH.authority.verify(RELAY.der, NOW + wall_s)
    else:
        assert refused(MESH.authority.verify, RELAY.der, NOW + wall_s) is reason


def test_the_time_of_the_authority() -> None:
    old = make_mesh(1, ends=10.0)
    node = old.node()
    old.authority.verify(node.der, NOW)
    assert refused(old.authority.verify, node.der, NOW + 11 + CLOCK_SKEW_S) is Reason.EXPIRED
    future = make_mesh(1, begins=DAY_S)
    assert refused(future.authority.verify, future.node().der, NOW) is Reason.NOT_YET_VALID


def test_whom_it_must_be_of() -> None:
    verify = MESH.authority.verify
    assert refused(verify, RELAY.der, NOW, role=Role.CONTROLLER) is Reason.WRONG_ROLE
    assert refused(verify, CONTROLLER.der, NOW, role=Role.RELAY) is Reason.WRONG_ROLE
    assert refused(verify, RELAY.der, NOW, id="fra-2") is Reason.WRONG_ID
    assert refused(verify, MESH.node(mesh="else").der, NOW) is Reason.WRONG_MESH


@pytest.mark.parametrize(
    "uris",
    [
        (),
        ("tradewind://shop/relay/fra/fra-1", "tradewind://shop/relay/fra/fra-2"),
        ("tradewind://shop/relay/fra/fra-1", "https://shop.example"),
        ("https://shop/relay/fra/fra-1",),
        ("tradewind:shop/relay/fra/fra-1",),
        ("tradewind://shop/relay/fra",),
        ("tradewind://shop/relay/fra/fra-1/x",),
        ("tradewind://shop/relay/fra/fra-1/",),
        ("tradewind://shop/relay//fra-1",),
        ("tradewind://shop/king/fra/fra-1",),
        ("tradewind://shop/RELAY/fra/fra-1",),
        ("tradewind://shop/relay/fra/FRA",),
        ("tradewind://shop/relay/fra/fra-1\n",),
        ("tradewind://user@shop/relay/fra/fra-1",),
        ("tradewind://shop/relay/fra/" + "a" * 41,),
    ],
)
def test_one_uri_of_the_right_form(uris: tuple[str, ...]) -> None:
    der = forged(uris)
    assert refused(MESH.authority.verify, der, NOW) is Reason.MALFORMED
    assert refused(parse_certificate, der) is Reason.MALFORMED


@pytest.mark.parametrize(
    "wrong",
    [
        {"usages": None},
        {"usages": (ExtendedKeyUsageOID.SERVER_AUTH,)},
        {"usages": (ExtendedKeyUsageOID.CLIENT_AUTH,)},
        {"usages": (ExtendedKeyUsageOID.CODE_SIGNING, ExtendedKeyUsageOID.CLIENT_AUTH)},
        {"ca": True},
        {"digital_signature": False},
        {"extra": x509.UnrecognizedExtension(ObjectIdentifier("1.2.3.4"), b"\x05\x00")},
        {"subject_key": ec.derive_private_key(7, ec.SECP384R1())},
        {"subject_key": ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32))},
    ],
)
def test_made_for_something_else(wrong: dict[str, Any]) -> None:
    assert refused(MESH.authority.verify, forged(**wrong), NOW) is Reason.MALFORMED


@given(data=st.data())
@settings(max_examples=200)
def test_broken_certificates(data: st.DataObject) -> None:
    """Bits flipped, ends cut, anything at all: refused, and with an error of ours."""
    der = bytearray(RELAY.der)
    if data.draw(st.booleans()):
        der[data.draw(st.integers(0, len(der) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del der[data.draw(st.integers(0, len(der) - 1)) :]
        der += data.draw(st.binary(max_size=8))
        if der == RELAY.der:
            return
    with pytest.raises(IdentityError):
        MESH.authority.verify(bytes(der), NOW)


def test_the_signature_is_whole_bytes() -> None:
    """Its length in bits stands outside of what is signed: the only byte that a stranger could change."""
    place = len(RELAY.der) - len(x509.load_der_x509_certificate(RELAY.der).signature) - 1
    der = bytearray(RELAY.der)
    der[place] = 1
    der[-1] &= 0xFE
    assert refused(parse_certificate, bytes(der)) is Reason.MALFORMED


def test_every_bit_matters() -> None:
    """All bytes of a certificate, one bit each."""
    for place in range(len(RELAY.der)):
        der = bytearray(RELAY.der)
        der[place] ^= 1 << place % 8
        with pytest.raises(IdentityError):
            MESH.authority.verify(bytes(der), NOW)


@given(st.binary(max_size=100))
def test_any_bytes(data: bytes) -> None:
    for act in (parse_certificate, parse_authority, parse_pem_certificate, parse_pem_key):
        assert refused(act, data) in {Reason.MALFORMED, Reason.NONE}


def test_certificates_have_a_bound() -> None:
    assert refused(parse_certificate, RELAY.der + bytes(MAX_CERTIFICATE_BYTES)) is Reason.MALFORMED


# --- Authorities ---


def test_an_authority_that_takes_over() -> None:
    old, new = make_mesh(1), make_mesh(2)
    both = parse_authority(certificate_pem(old.der) + certificate_pem(new.der))
    assert both.certificates == (old.der, new.der)
    for mesh in (old, new):
        assert both.verify(mesh.node().der, NOW).mesh == "shop"
    assert refused(new.authority.verify, old.node().der, NOW) is Reason.UNKNOWN_AUTHORITY
    assert refused(Authority, [old.der, make_mesh(3, "else").der]) is Reason.WRONG_MESH
    assert refused(Authority, [old.der] * 9) is Reason.MALFORMED


def test_no_authority() -> None:
    assert refused(Authority, [forged(("tradewind://shop",))]) is Reason.MALFORMED
    itself: dict[str, Any] = {"uris": ("tradewind://shop",), "signer": key(50)}
    wrongs: list[dict[str, Any]] = [
        {"key_cert_sign": True},
        {"ca": True, "path_length": 0},
        {"ca": True, "path_length": 1, "key_cert_sign": True},
        {"ca": True, "key_cert_sign": True},
    ]
    for wrong in wrongs:
        # The last two would let nodes be authorities themselves.
        assert refused(Authority, [forged(**itself, **wrong)]) is Reason.MALFORMED
    assert refused(Authority, [MESH.der[:-1]]) is Reason.MALFORMED
    broken = bytearray(MESH.der)
    broken[-1] ^= 1
    assert refused(Authority, [bytes(broken)]) is Reason.BAD_SIGNATURE


def test_an_authority_makes_no_authorities() -> None:
    certificate = x509.load_der_x509_certificate(MESH.der)
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(ca=True, path_length=0)


# --- Ordering ---


def test_a_certificate_ordered_again() -> None:
    order = Order("shop", Role.RELAY, "fra", "fra-1", ("relay.example", "192.0.2.1", "2001:db8::1"))
    der = issue(order, key(9).public_key(), MESH.der, MESH.key, Terms(7, NOW, NOW + 10))
    assert order_of(der) == order
    names = x509.load_der_x509_certificate(der).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["fra-1.shop.tradewind.internal", "relay.example"]
    assert server_name("shop", "fra-1") == "fra-1.shop.tradewind.internal"


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": "Fra"},
        {"region": ""},
        {"mesh": "a/b"},
        {"names": ("",)},
        {"names": ("a b",)},
        {"names": ("*.example",)},
        {"names": ("exämple",)},
        {"names": ("192.0.2.999",)},
        {"names": ("a.example.",)},
        {"names": ("x",) * 33},
    ],
)
def test_orders_that_nobody_fills(wrong: dict[str, Any]) -> None:
    with pytest.raises(OrderError):
        Order(**{"mesh": "shop", "role": Role.RELAY, "region": "fra", "id": "fra-1", **wrong})


def test_terms_and_keys_that_do_not_fit() -> None:
    for terms in ((0, 1.0, 2.0), (2**159, 1.0, 2.0), (1, 2.0, 2.0)):
        with pytest.raises(OrderError):
            Terms(*terms)
    with pytest.raises(OrderError, match="not the authority's"):
        issue(Order("shop", Role.RELAY, "fra", "a"), key(9).public_key(), MESH.der, key(10), Terms(1, NOW, NOW + 1))
    with pytest.raises(OrderError):
        make_authority("A", key(1), Terms(1, NOW, NOW + 1))
    long = tuple(f"{number:02}" + ".a" * 120 for number in range(32))
    with pytest.raises(OrderError, match="bytes"):
        MESH.node(names=long)


def test_keys_in_files() -> None:
    made = generate_key()
    assert parse_pem_key(key_pem(made)).public_key() == made.public_key()
    assert parse_pem_certificate(certificate_pem(RELAY.der)) == RELAY.der
    other = ec.derive_private_key(7, ec.SECP384R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    assert refused(parse_pem_key, other) is Reason.MALFORMED


# --- Signatures ---


def test_a_signed_table() -> None:
    signed = sign_table(b"table", CONTROLLER.key, CONTROLLER.der)
    assert verify_table(signed, MESH.authority, NOW) == b"table"
    wrong = {
        Reason.BAD_SIGNATURE: [
            replace(signed, table=b"tablf"),
            replace(signed, signature=b""),
            replace(signed, signature=signed.signature[:-1]),
            replace(signed, signature=sign(b"tradewind proof 1", [b"table"], CONTROLLER.key)),
            sign_table(b"table", RELAY.key, CONTROLLER.der),
        ],
        Reason.WRONG_ROLE: [sign_table(b"table", RELAY.key, RELAY.der)],
        Reason.NONE: [replace(signed, certificate=b"")],
        Reason.UNKNOWN_AUTHORITY: [
            sign_table(b"table", key(100), make_mesh(2).node(role=Role.CONTROLLER).der),
        ],
    }
    for reason, all_signed in wrong.items():
        for one in all_signed:
            assert refused(verify_table, one, MESH.authority, NOW) is reason
    assert refused(verify_table, signed, MESH.authority, NOW + 91 * DAY_S) is Reason.EXPIRED


def test_a_statement_cannot_be_shifted() -> None:
    signature = sign(b"purpose", [b"ab", b"c"], RELAY.key)
    check_signature(RELAY.der, b"purpose", [b"ab", b"c"], signature)
    for purpose, fields in (
        (b"porpuse", [b"ab", b"c"]),
        (b"purpose", [b"a", b"bc"]),
        (b"purposeab", [b"c"]),
        (b"purpose", [b"ab", b"c", b""]),
    ):
        assert refused(check_signature, RELAY.der, purpose, fields, signature) is Reason.BAD_SIGNATURE
