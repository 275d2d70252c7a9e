"""Protocols of the mesh's own on everybody's port: another certificate, other stream limits."""

from __future__ import annotations

import dataclasses
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from tests.quic.certificates import AUTHORITY_PEM, CERTIFICATE
from tests.quic.pair import SERVER, End, Link, client_settings, server_settings
from tests.sim.certificate import CERTIFICATE as OWN
from tradewind.quic.config import Certificate, PrivateProtocols, ServerTrust
from tradewind.quic.connection import Connection
from tradewind.quic.endpoint import Endpoint
from tradewind.quic.events import Closed, Opened

NODES = PrivateProtocols(("node-1",), OWN, bidi_streams=300, uni_streams=400)


def fingerprint(certificate: Certificate) -> bytes:
    return sha256(certificate.chain[0].public_bytes(Encoding.DER)).digest()


def dial(protocol: str, trust: ServerTrust) -> tuple[End, Connection, Link]:
    server = End(Endpoint(dataclasses.replace(server_settings(), private=NODES)), SERVER)
    link = Link(server)
    client = End(Endpoint(dataclasses.replace(client_settings(), trust=trust), is_client=True), ("192.0.2.10", 1))
    link.ends[client.address] = client
    connection = client.endpoint.connect(SERVER, link.now, server_name="relay.test", protocols=(protocol,))
    link.run(1.0)
    return client, connection, link


def test_nodes_see_the_certificate_of_nodes() -> None:
    client, connection, link = dial("node-1", ServerTrust(pinned_sha256=fingerprint(OWN)))
    assert client.told(Opened)
    assert connection.certificate_sha256() == fingerprint(OWN)
    (server,) = link.ends[SERVER].endpoint.connections
    assert server.certificate_sha256() == fingerprint(OWN)
    assert server.protocol == "node-1"


def test_everybody_else_sees_the_public_one() -> None:
    client, connection, _ = dial("moqt-20", ServerTrust(authorities_pem=AUTHORITY_PEM))
    assert client.told(Opened)
    assert connection.certificate_sha256() == fingerprint(CERTIFICATE)


@pytest.mark.parametrize(("protocol", "bidi", "uni"), [("node-1", 300, 400), ("moqt-20", 128, 128)])
def test_nodes_may_open_more_streams(protocol: str, bidi: int, uni: int) -> None:
    _, connection, link = dial(protocol, ServerTrust(verify=False))
    opened = [0, 0]
    while connection.open_bidi() is not None:
        opened[0] += 1
    while (stream := connection.open_uni()) is not None:
        connection.send(stream, b"x")
        opened[1] += 1
    assert opened == [bidi, uni]
    link.run(1.0)
    assert not connection.is_closed


def test_a_node_is_not_taken_for_everybody() -> None:
    client, _, _ = dial("node-1", ServerTrust(pinned_sha256=fingerprint(CERTIFICATE)))
    assert client.told(Closed)
    assert not client.told(Opened)
