"""Proving who one is: what works, every refusal, and that any bytes, however cut, end in one of them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.contract.mesh import CONTROLLER, DAY_S, MESH, NOW, OTHER_RELAY, RELAY, Node, key, make_mesh
from tests.quic.pair import End, Pair, client_settings, make_pair, open_bidi, server_settings
from tradewind.contract import proving
from tradewind.contract.codec import VERSION, Codec, ContractError, Frames, frame
from tradewind.contract.identity import Authority, IdentityError, Reason, server_name
from tradewind.contract.ids import Role
from tradewind.contract.issuing import certificate_pem, key_pem
from tradewind.contract.proving import PROVING, PROVING_S, Accepted, Challenge, Proof, Proven, Prover, Verifier
from tradewind.quic.config import Certificate, ServerTrust, load_certificate
from tradewind.quic.connection import Connection
from tradewind.quic.events import Closed, Opened, StreamData

NONCE = bytes(range(32))
CODEC: Codec[Any] = Codec(PROVING, 0, {})


def prover(node: Node = RELAY, **changes: Any) -> Prover:
    given = {
        "server": CONTROLLER.der,
        "alpn": "control",
        "role": Role.CONTROLLER,
        "now": 5.0,
        "wall_now": NOW,
        "authority": MESH.authority,
        "certificate": node.der,
        "key": node.key,
    }
    return Prover(**{**given, **changes})


def verifier(**changes: Any) -> Verifier:
    given = {
        "server": CONTROLLER.der,
        "alpn": "control",
        "role": Role.RELAY,
        "nonce": NONCE,
        "now": 5.0,
        "wall_now": NOW,
    }
    return Verifier(**{"authority": MESH.authority, **given, **changes})


def refused(act: Callable[..., object], *arguments: Any, **named: Any) -> Reason:
    with pytest.raises(IdentityError) as caught:
        act(*arguments, **named)
    return caught.value.reason


def message(data: bytes) -> Any:
    frames = Frames(PROVING.max_frame_bytes)
    frames.receive(data)
    found = frames.take()
    assert found is not None
    return CODEC.decode(found)


def proof_of(dialler: Prover, acceptor: Verifier) -> bytes:
    """What the dialler answers to the acceptor's challenge."""
    assert dialler.receive(acceptor.bytes_to_send(), 5.1) is None
    return dialler.bytes_to_send()


def run(dialler: Prover, acceptor: Verifier) -> tuple[Proven, Proven]:
    """Both ends' results, the acceptor's first."""
    at_acceptor = acceptor.receive(proof_of(dialler, acceptor), 5.2)
    at_dialler = dialler.receive(acceptor.bytes_to_send(), 5.3)
    assert at_acceptor is not None
    assert at_dialler is not None
    return at_acceptor, at_dialler


def test_both_know_each_other() -> None:
    dialler, acceptor = prover(), verifier()
    assert dialler.next_deadline() == acceptor.next_deadline() == 5.0 + PROVING_S
    at_acceptor, at_dialler = run(dialler, acceptor)
    assert (at_acceptor.peer.id, at_acceptor.peer.region, at_acceptor.peer.role) == ("fra-1", "fra", Role.RELAY)
    assert (at_dialler.peer.id, at_dialler.peer.role) == ("main", Role.CONTROLLER)
    assert (at_acceptor.version, at_dialler.version) == (VERSION, VERSION)
    for end in (dialler, acceptor):
        assert end.next_deadline() is None
        assert end.bytes_to_send() == b""
        end.handle_deadline(1000.0)
        end.finish()


def test_relay_to_relay() -> None:
    at_acceptor, at_dialler = run(
        prover(server=OTHER_RELAY.der, role=Role.RELAY, id="ams-2", alpn="link"),
        verifier(server=OTHER_RELAY.der, alpn="link"),
    )
    assert (at_acceptor.peer.id, at_dialler.peer.id) == ("fra-1", "ams-2")


# --- Versions ---


@pytest.mark.parametrize(
    ("dialler", "acceptor", "spoken"), [((2, 1), (1,), 1), ((2, 1), (3, 2), 2), ((4, 3), (4, 3), 4), ((1,), (2, 1), 1)]
)
def test_the_newest_that_both_speak(dialler: Any, acceptor: Any, spoken: int) -> None:
    ends = run(prover(versions=dialler), verifier(versions=acceptor))
    assert [end.version for end in ends] == [spoken, spoken]


def test_no_version_in_common() -> None:
    dialler, acceptor = prover(versions=(1,)), verifier(versions=(3, 2))
    for _ in range(2):
        with pytest.raises(ContractError, match="no version"):
            dialler.receive(acceptor.bytes_to_send(), 5.1)
    assert dialler.bytes_to_send() == b""


def test_versions_are_signed() -> None:
    """Nobody in between makes them speak an older one."""
    dialler, acceptor = prover(versions=(2, 1)), verifier(versions=(2, 1))
    challenge = message(acceptor.bytes_to_send())
    dialler.receive(CODEC.encode_frame(Challenge(challenge.nonce, (1,))), 5.1)
    assert refused(acceptor.receive, dialler.bytes_to_send(), 5.2) is Reason.BAD_SIGNATURE
    dialler = prover(versions=(2, 1))
    proof = message(proof_of(dialler, verifier(versions=(2, 1))))
    lowered = Proof(proof.certificate, proof.nonce, (1,), proof.signature)
    assert refused(verifier(versions=(2, 1)).receive, CODEC.encode_frame(lowered), 5.2) is Reason.BAD_SIGNATURE
    assert refused(dialler.receive, CODEC.encode_frame(Accepted(1)), 5.2) is Reason.MALFORMED


# --- Diallers that are refused ---


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        (make_mesh(2).node("fra-1"), Reason.UNKNOWN_AUTHORITY),
        (make_mesh(2, "else").node("fra-1"), Reason.UNKNOWN_AUTHORITY),
        (MESH.node(mesh="else"), Reason.WRONG_MESH),
        (MESH.node(ends=-100.0, begins=-DAY_S), Reason.EXPIRED),
        (MESH.node(begins=100.0), Reason.NOT_YET_VALID),
        (CONTROLLER, Reason.WRONG_ROLE),
        (Node(RELAY.der, OTHER_RELAY.key), Reason.BAD_SIGNATURE),
    ],
)
def test_a_dialler_who_is_nobody_here(node: Node, reason: Reason) -> None:
    acceptor = verifier()
    proof = proof_of(prover(node), acceptor)
    assert refused(acceptor.receive, proof, 5.2) is reason
    assert acceptor.bytes_to_send() == b""
    assert acceptor.next_deadline() is None
    assert refused(acceptor.receive, proof_of(prover(), verifier()), 5.3) is reason


def test_a_certificate_signed_by_itself() -> None:
    from tests.contract.test_identity import forged

    acceptor = verifier()
    itself = Node(forged(signer=key(50)), key(50))
    assert refused(acceptor.receive, proof_of(prover(itself), acceptor), 5.2) is Reason.SELF_SIGNED


def test_nothing_shown() -> None:
    acceptor = verifier()
    assert acceptor.receive(b"", 14.9) is None
    acceptor.handle_deadline(14.9)
    assert refused(acceptor.handle_deadline, 15.0) is Reason.NONE
    assert refused(acceptor.receive, proof_of(prover(), verifier()), 14.0) is Reason.NONE
    assert refused(verifier().finish) is Reason.NONE
    assert refused(prover().handle_deadline, 15.0) is Reason.NONE
    unsigned = Proof(b"", NONCE, (1,), b"")
    assert refused(verifier().receive, CODEC.encode_frame(unsigned), 5.1) is Reason.NONE


def test_a_nonce_is_good_for_ten_seconds() -> None:
    acceptor = verifier()
    proof = proof_of(prover(), acceptor)
    assert refused(acceptor.receive, proof, 15.0) is Reason.NONE
    assert verifier().receive(proof, 14.9) is not None


def test_a_proof_is_good_once() -> None:
    acceptor = verifier()
    proof = proof_of(prover(), acceptor)
    assert refused(verifier(nonce=bytes(32)).receive, proof, 5.2) is Reason.REPLAYED
    assert acceptor.receive(proof, 5.2) is not None
    assert refused(acceptor.receive, proof, 5.3) is Reason.REPLAYED
    # With the new nonce written into it, it is signed over the old one still.
    old = message(proof)
    moved = Proof(old.certificate, bytes(32), old.versions, old.signature)
    assert refused(verifier(nonce=bytes(32)).receive, CODEC.encode_frame(moved), 5.2) is Reason.BAD_SIGNATURE


@pytest.mark.parametrize(
    "elsewhere",
    [
        {"alpn": "link"},
        {"server": MESH.node("main", Role.CONTROLLER, 14).der},
        {"server": MESH.node("other", Role.CONTROLLER, 15).der},
        {"server": MESH.node("main", Role.CONTROLLER, 13, ends=DAY_S).der},
    ],
)
def test_a_proof_for_somebody_else(elsewhere: dict[str, Any]) -> None:
    """Whoever is shown a proof cannot show it to another: not with the same nonce, and not from its own successor."""
    proof = proof_of(prover(), verifier())
    assert refused(verifier(**elsewhere).receive, proof, 5.2) is Reason.BAD_SIGNATURE


def test_a_proof_with_another_certificate() -> None:
    """The same key under another name says something else."""
    proof = message(proof_of(prover(), verifier()))
    twin = MESH.node("fra-9", Role.RELAY, 11)
    swapped = Proof(twin.der, proof.nonce, proof.versions, proof.signature)
    assert refused(verifier().receive, CODEC.encode_frame(swapped), 5.2) is Reason.BAD_SIGNATURE


# --- Servers that are refused ---


@pytest.mark.parametrize(
    ("server", "named", "reason"),
    [
        (b"", {}, Reason.NONE),
        (make_mesh(2).node("main", Role.CONTROLLER).der, {}, Reason.UNKNOWN_AUTHORITY),
        (RELAY.der, {}, Reason.WRONG_ROLE),
        (CONTROLLER.der, {"id": "other"}, Reason.WRONG_ID),
        (MESH.node("main", Role.CONTROLLER, ends=-200.0).der, {}, Reason.EXPIRED),
        (CONTROLLER.der[:-1], {}, Reason.MALFORMED),
        (MESH.der, {}, Reason.MALFORMED),
    ],
)
def test_nothing_is_signed_for_a_stranger(server: bytes, named: dict[str, str], reason: Reason) -> None:
    assert refused(prover, server=server, **named) is reason


# --- Messages out of turn, and bytes that are none ---


def test_out_of_turn() -> None:
    challenge, accepted = CODEC.encode_frame(Challenge(NONCE, (1,))), CODEC.encode_frame(Accepted(1))
    assert refused(prover().receive, accepted, 5.1) is Reason.MALFORMED
    dialler = prover()
    assert refused(dialler.receive, challenge + challenge, 5.1) is Reason.MALFORMED
    assert dialler.bytes_to_send() == b""
    assert refused(dialler.finish) is Reason.MALFORMED
    assert refused(prover().receive, CODEC.encode_frame(Proof(b"", NONCE, (1,), b"")), 5.1) is Reason.MALFORMED
    for data in (challenge, accepted):
        assert refused(verifier().receive, data, 5.1) is Reason.MALFORMED


@pytest.mark.parametrize(
    "wrong",
    [Challenge(NONCE[:-1], (1,)), Challenge(NONCE, ()), Challenge(NONCE, (1,) * 17), Proof(b"", NONCE, (-1,), b"")],
)
def test_messages_out_of_bounds(wrong: Any) -> None:
    with pytest.raises(ContractError, match="shape"):
        CODEC.encode(wrong)


@given(cuts=st.lists(st.integers(0, 2000), max_size=6), rest=st.binary(max_size=20))
@settings(max_examples=50)
def test_however_the_bytes_were_cut(cuts: list[int], rest: bytes) -> None:
    """What follows the last message is handed on, whole."""
    dialler, acceptor = prover(), verifier()

    def feed(end: Prover | Verifier, data: bytes) -> Proven | None:
        places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
        for number, (begin, stop) in enumerate(pairwise(places)):
            proven = end.receive(data[begin:stop], 5.1)
            if proven is not None:
                return Proven(proven.peer, proven.version, proven.rest + data[stop:])
            assert number + 2 < len(places) or end is dialler
        return None

    assert feed(dialler, acceptor.bytes_to_send()) is None
    at_acceptor = feed(acceptor, dialler.bytes_to_send() + rest)
    assert at_acceptor is not None and at_acceptor.rest == rest
    at_dialler = feed(dialler, acceptor.bytes_to_send() + rest)
    assert at_dialler is not None and at_dialler.rest == rest


@given(place=st.integers(0, 10_000), bit=st.integers(0, 7))
@settings(max_examples=100)
def test_flipped_bits(place: int, bit: int) -> None:
    acceptor = verifier()
    proof = bytearray(proof_of(prover(), acceptor))
    # Signatures are not always of one length.
    proof[place % len(proof)] ^= 1 << bit
    try:
        # A longer length waits for bytes that never come.
        assert acceptor.receive(bytes(proof), 5.2) is None
        acceptor.handle_deadline(15.0)
    except IdentityError:
        return
    raise AssertionError("a broken proof was taken")


@given(st.binary(max_size=60), st.booleans())
@settings(max_examples=100)
def test_any_bytes(data: bytes, framed: bool) -> None:
    for end in (prover(), verifier()):
        try:
            assert end.receive(frame(data) if framed else data, 5.1) is None
            end.finish()
        except IdentityError:
            continue
        raise AssertionError("nonsense was taken")


def test_truncated_everywhere() -> None:
    proof = proof_of(prover(), verifier())
    for size in range(0, len(proof), 7):
        acceptor = verifier()
        assert acceptor.receive(proof[:size], 5.1) is None
        assert refused(acceptor.finish) is Reason.NONE
    assert refused(verifier().receive, frame(bytes(PROVING.max_frame_bytes + 1)), 5.1) is Reason.MALFORMED


# --- Over a connection ---


ALPN = "tradewind-test"


def tls(node: Node) -> Certificate:
    return load_certificate(certificate_pem(node.der), key_pem(node.key))


def wall_node(id: str, role: Role, number: int, mesh: Any = None) -> tuple[Any, Node]:
    """A mesh and a node of it for TLS, which looks at the machine's clock: valid for as long as anybody runs this."""
    made = mesh or make_mesh(number, begins=-30 * 365 * DAY_S, ends=80 * 365 * DAY_S)
    return made, made.node(id, role, number + 1, begins=-30 * 365 * DAY_S, ends=80 * 365 * DAY_S, names=("relay.test",))


def dialled(server: Certificate, *trusted: bytes, open_it: bool = True) -> Pair:
    """A client that trusts these authorities, and a server with this certificate."""
    trust = ServerTrust(authorities_pem=b"".join(map(certificate_pem, trusted)))
    return make_pair(
        server=server_settings(protocols=(ALPN,), webtransport=False, certificate=server),
        client=client_settings(protocols=(ALPN,), webtransport=False, trust=trust),
        open_it=open_it,
    )


def carry(pair: Pair, at: End, connection: Connection, end: Prover | Verifier) -> list[Proven]:
    """From now on what comes on this connection is the proof; in the list is what it came to, once it has."""
    proven: list[Proven] = []

    def on_events(events: list[Any]) -> None:
        for event in events:
            if isinstance(event, StreamData):
                found = end.receive(event.data, pair.link.now)
                connection.consumed(event.stream, len(event.data))
                connection.send(event.stream, end.bytes_to_send())
                proven.extend([found] if found is not None else [])

    at.on_events = on_events
    return proven


@pytest.mark.parametrize("authorities", ["the mesh's", "an old one and the mesh's"])
def test_over_quic(authorities: str) -> None:
    """TLS takes the certificate, and the proof goes over the connection's first stream."""
    mesh, server = wall_node("main", Role.CONTROLLER, 20)
    _, client = wall_node("fra-1", Role.RELAY, 30, mesh)
    old = make_mesh(40, begins=-30 * 365 * DAY_S, ends=80 * 365 * DAY_S)
    trusted = [mesh.der] if authorities == "the mesh's" else [old.der, mesh.der]
    pair = dialled(tls(server), *trusted)
    at_client, at_server = pair.at_client, pair.at_server
    assert at_client.certificate_der() == at_server.certificate_der() == server.der
    began = pair.link.now
    known = {"authority": Authority(trusted), "now": began}
    acceptor = verifier(server=at_server.certificate_der(), alpn=at_server.protocol, **known)
    dialler = prover(client, server=at_client.certificate_der(), alpn=at_client.protocol, id="main", **known)
    at_dialler = carry(pair, pair.client, at_client, dialler)
    at_acceptor = carry(pair, pair.server, at_server, acceptor)
    at_server.send(open_bidi(at_server), acceptor.bytes_to_send())
    pair.run(2.0, until=lambda: bool(at_dialler and at_acceptor))
    assert [one.peer.uri for one in at_acceptor] == ["tradewind://shop/relay/fra/fra-1"]
    assert [one.peer.uri for one in at_dialler] == ["tradewind://shop/controller/fra/main"]
    assert pair.link.now - began < 0.05  # one round trip of 20 ms and half of another
    pair.check()


def test_a_server_is_known_by_its_id_at_any_address() -> None:
    mesh, server = wall_node("main", Role.CONTROLLER, 20)
    for name, opened in ((server_name("shop", "main"), True), (server_name("shop", "other"), False)):
        pair = dialled(tls(server), mesh.der, open_it=False)
        pair.client.events.clear()
        again = pair.client.endpoint.connect(pair.server.address, pair.link.now, server_name=name)
        events = pair.client.events
        while not any(event.connection is again for event in events):
            assert pair.link.step()
        kinds = {type(event) for event in events if event.connection is again}
        assert kinds == ({Opened} if opened else {Closed})


@pytest.mark.parametrize("stranger", ["of another mesh", "signed by itself"])
def test_a_server_that_is_not_of_the_mesh(stranger: str) -> None:
    """TLS itself refuses it, before anything is proven."""
    from tests.quic.certificates import CERTIFICATE

    mesh, _ = wall_node("main", Role.CONTROLLER, 20)
    _, other = wall_node("main", Role.CONTROLLER, 60)
    shown = tls(other) if stranger == "of another mesh" else CERTIFICATE
    pair = dialled(shown, mesh.der, open_it=False)
    pair.run(2.0, until=lambda: bool(pair.client.told(Closed)))
    assert not pair.client.told(Opened)


def test_the_messages_are_the_same_in_every_version() -> None:
    """An envelope of version 0, whatever `codec` speaks: old and new must be able to choose."""
    assert CODEC.encode(Accepted(1)).hex() == "920082a174a86163636570746564a776657273696f6e01"
    assert proving.NONCE_BYTES == 32
