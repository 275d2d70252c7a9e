"""What the files that lean on aioquic believe about its insides.

A failure here means: read aioquic's change, then ours.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
from pathlib import Path

import aioquic
import pytest
from aioquic._crypto import AEAD, HeaderProtection
from aioquic.h3.connection import H3Connection
from aioquic.quic.connection import QuicConnection
from aioquic.quic.crypto import CryptoContext, CryptoPair
from aioquic.quic.packet_builder import QuicPacketBuilder, QuicSentPacket
from aioquic.quic.recovery import QuicPacketPacer, QuicPacketRecovery, QuicPacketSpace
from aioquic.tls import CipherSuite, Context, Epoch

import tradewind.quic
from tests.quic.pair import Weather, make_pair
from tradewind.quic.core import CLIENT_GROUPS, QuicCore
from tradewind.quic.events import Closed, DatagramReceived, StreamData
from tradewind.quic.http3 import _Streams
from tradewind.quic.packets import seal
from tradewind.quic.stream_core import StreamCore

LEANING = {"core.py", "ingest.py", "packets.py", "stream_core.py"}
OVERRIDDEN = {
    "__init__",
    "_initialize",
    "_get_or_create_stream",
    "_handle_ack_frame",
    "_handle_connection_close_frame",
    "_handle_crypto_frame",
    "_handle_datagram_frame",
    "_handle_max_data_frame",
    "_handle_max_stream_data_frame",
    "_handle_reset_stream_frame",
    "_handle_stop_sending_frame",
    "_handle_stream_frame",
    "_idle_timeout",
    "_on_new_connection_id_delivery",
    "_parse_transport_parameters",
    "_replenish_connection_ids",
    "close",
    "get_timer",
    "handle_timer",
    "receive_datagram",
}
DIGESTS = {
    QuicConnection.__init__: "81aea715e344",
    QuicConnection.close: "f24ea1b2912e",
    QuicConnection.datagrams_to_send: "f4eb22c8add2",
    QuicConnection.get_timer: "07184a05f894",
    QuicConnection.handle_timer: "8ebd76a179bf",
    QuicConnection.receive_datagram: "3c7f29826050",
    QuicConnection._initialize: "6a41681e541c",
    Context._server_handle_hello: "ce53cc7baafe",
    QuicConnection._close_end: "7e32d95840a6",
    QuicConnection._flush_builder: "ac4bd66d7c38",
    QuicConnection._get_or_create_stream: "aee09c84cd0d",
    QuicConnection._handle_crypto_frame: "e77f8695d9ac",
    QuicConnection._handle_datagram_frame: "38fb0c3c9f00",
    QuicConnection._handle_max_data_frame: "e5c49776cb2c",
    QuicConnection._handle_max_stream_data_frame: "c94e4873026a",
    QuicConnection._handle_reset_stream_frame: "0a1801842064",
    QuicConnection._handle_stop_sending_frame: "57b0b54a8467",
    QuicConnection._handle_stream_frame: "8c79348a854e",
    QuicConnection._handle_ack_frame: "a9cf2707aa0f",
    QuicConnection._idle_timeout: "8549f45b0941",
    QuicConnection._on_ack_delivery: "14648d79ecc5",
    QuicConnection._parse_transport_parameters: "0da95a03bd5b",
    QuicConnection._payload_received: "612b67759a96",
    QuicConnection._replenish_connection_ids: "73b127efb89c",
    QuicConnection._serialize_transport_parameters: "be651f3ddfcd",
    QuicConnection._write_ack_frame: "dc0bde63adda",
    QuicConnection._write_application: "c37bf64378f7",
    CryptoContext.decrypt_packet: "fe94c52f762d",
    CryptoPair.encrypt_packet: "f244294823e4",
    AEAD: "f9a6d1839453",
    HeaderProtection: "3c96518aef24",
    QuicPacketBuilder._end_packet: "585948d03825",
    QuicPacketPacer: "d845e32503fb",
    QuicPacketRecovery.__init__: "11dd9eddeac7",
    QuicPacketRecovery.get_loss_detection_time: "de155cb9bef9",
    QuicPacketRecovery.get_probe_timeout: "782ca5036a10",
    QuicPacketRecovery.on_ack_received: "1a7c69347908",
    QuicPacketRecovery.on_packet_sent: "a83baa6e0570",
    QuicPacketRecovery._detect_loss: "56e5a246bb22",
    QuicPacketRecovery._on_packets_lost: "77a0ba759513",
    QuicPacketSpace: "c7cc186fce73",
    QuicSentPacket: "cf8cb41c7ff0",
    H3Connection.__init__: "dd6af01c0d75",
    H3Connection._receive_request_or_push_data: "9d6a7ba4950b",
    H3Connection._receive_stream_data_uni: "48efcd723438",
}


def digest(thing) -> str:
    return hashlib.sha256(inspect.getsource(thing).encode()).hexdigest()[:12]


@pytest.fixture(scope="module")
def opened():
    pair = make_pair()
    pair.run(1.0)
    return pair


def test_aioquic_is_the_version_that_was_read():
    assert aioquic.__version__ == "1.7.2"


@pytest.mark.parametrize("thing", DIGESTS, ids=lambda thing: thing.__qualname__)
def test_what_we_replace_or_follow_has_not_changed(thing):
    assert digest(thing) == DIGESTS[thing]


def test_private_names_of_others_are_used_in_few_files_only():
    found = []
    for file in Path(tradewind.quic.__path__[0]).glob("*.py"):
        if file.name in LEANING:
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Attribute) or not node.attr.startswith("_") or node.attr.startswith("__"):
                continue
            if ast.unparse(node.value) not in ("self", "super()"):
                found.append(f"{file.name}:{node.lineno} {node.attr}")
    assert found == []


def test_we_override_what_we_mean_to_and_nothing_else():
    written = vars(QuicCore) | vars(StreamCore)
    ours = {name for name, value in written.items() if callable(value) or isinstance(value, property)}
    assert {name for name in ours if hasattr(QuicConnection, name)} == OVERRIDDEN
    names = set(vars(make_pair().at_client._core)) - set(written)
    assert not {name for name in names if hasattr(QuicConnection, name)}


@pytest.mark.parametrize("name", sorted(OVERRIDDEN - {"__init__"}))
def test_overrides_take_what_aioquic_gives(name):
    theirs, ours = (list(inspect.signature(getattr(owner, name)).parameters) for owner in (QuicConnection, QuicCore))
    assert ours == theirs


def test_http3_uses_only_what_our_streams_offer():
    tree = ast.parse(
        inspect.getsource(H3Connection).replace("\n    ", "\n").replace("class H3Connection:", "if 1:\n  pass", 1)
    )
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and (
            (isinstance(node.value, ast.Attribute) and node.value.attr == "_quic")
            or (isinstance(node.value, ast.Name) and node.value.id == "quic")
        )
    }
    offered = set(dir(_Streams)) | {"_quic_logger", "_remote_max_datagram_frame_size"}
    assert used - offered == {"send_datagram_frame"}, "datagrams are ours, the rest must be there"


def test_attributes_exist_on_a_live_connection(opened):
    core = opened.at_server._core
    for name in [
        "_ack_eliciting_sent_since_receipt",
        "_close_at",
        "_close_event",
        "_close_pending",
        "_ack_delay",
        "_configuration",
        "_cryptos",
        "_events",
        "_handshake_complete",
        "_handshake_confirmed",
        "_handshake_done_pending",
        "_host_cids",
        "_is_client",
        "_local_ack_delay_exponent",
        "_local_next_stream_id_bidi",
        "_local_next_stream_id_uni",
        "_loss",
        "_max_datagram_size",
        "_network_paths",
        "_pacing_at",
        "_packet_number",
        "_peer_cid",
        "_ping_pending",
        "_probe_pending",
        "_remote_ack_delay_exponent",
        "_remote_max_data",
        "_remote_max_datagram_frame_size",
        "_remote_max_stream_data_bidi_local",
        "_remote_max_stream_data_bidi_remote",
        "_remote_max_stream_data_uni",
        "_remote_max_streams_bidi",
        "_remote_max_streams_uni",
        "_remote_preferred_address",
        "_retire_connection_ids",
        "_spaces",
        "_remote_max_idle_timeout",
        "_spin_bit",
        "_spin_highest_pn",
        "_state",
        "_version",
    ]:
        assert hasattr(core, name), name
    assert core._handshake_confirmed
    assert opened.at_client._core.tls._supported_groups == list(CLIENT_GROUPS)
    assert not core._close_pending
    assert core._network_paths[0].is_validated
    assert not core._has_own_frames()


def test_limits_are_announced(opened):
    limits = opened.at_server._core.limits
    core = opened.at_client._core
    assert core._remote_max_data == limits.session_window_bytes
    assert core._remote_max_streams_bidi == limits.bidi_streams
    assert core._remote_max_streams_uni == limits.uni_streams
    assert core._remote_max_stream_data_uni == core._remote_max_stream_data_bidi_local == limits.stream_window_bytes
    assert core._remote_max_stream_data_bidi_remote == limits.stream_window_bytes


@pytest.mark.parametrize("suite", list(CipherSuite)[:3], ids=lambda suite: suite.name)
@pytest.mark.parametrize("updated", [False, True])
def test_our_seal_is_aioquics(suite, updated):
    ours, theirs, reader = CryptoPair(), CryptoPair(), CryptoPair()
    secret = bytes(48 if suite == CipherSuite.AES_256_GCM_SHA384 else 32)
    for pair in (ours, theirs, reader):
        for context in (pair.send, pair.recv):
            context.setup(cipher_suite=suite, secret=secret, version=1)
    if updated:
        ours.update_key()
        theirs.update_key()
    for number in (0, 1, 0xFFFF, 0x10000, 0x12345678):
        payload, cid = b"\x01" + bytes(300), b"12345678"
        first = 0x41 | 1 << 5 | theirs.key_phase << 2
        expected = theirs.encrypt_packet(bytes([first]) + cid + (number & 0xFFFF).to_bytes(2, "big"), payload, number)
        assert seal(ours, cid, True, number, [payload]) == [expected]
        assert reader.decrypt_packet(expected, 9, number)[1:] == (payload, number)


@pytest.mark.parametrize("suite", list(CipherSuite)[:3], ids=lambda suite: suite.name)
def test_a_burst_is_sealed_as_its_packets_are(suite):
    pair = CryptoPair()
    pair.send.setup(cipher_suite=suite, secret=bytes(48 if suite == CipherSuite.AES_256_GCM_SHA384 else 32), version=1)
    payloads = [bytes([size]) * (size + 20) for size in range(5)]
    one_by_one = [seal(pair, b"12345678", False, 0xFFFE + at, [payload])[0] for at, payload in enumerate(payloads)]
    assert seal(pair, b"12345678", False, 0xFFFE, payloads) == one_by_one


@pytest.mark.parametrize(
    "ask",
    [
        lambda core: core.send_ping(7),
        lambda core: core._send_probe(),
        lambda core: core._retire_connection_ids.append(99),
        lambda core: core.change_connection_id(),
        lambda core: core._network_paths[0].remote_challenges.append(bytes(8)),
        lambda core: setattr(core, "_handshake_done_pending", True),
        lambda core: core._replenish_connection_ids() or core._host_cids[-1].__setattr__("was_sent", False),
        lambda core: core.close(3, None, "over"),
    ],
    ids=["ping", "probe", "retire", "change-cid", "path-response", "handshake-done", "new-cid", "close"],
)
def test_aioquics_own_frames_leave(ask):
    pair = make_pair()
    pair.run(1.0)
    core = pair.at_server._core
    assert not core._has_own_frames()
    before = core._packet_number
    ask(core)
    core.steady = False
    assert core._has_own_frames()
    batches = []
    core.collect(batches, pair.link.now)
    assert batches
    assert core._packet_number == before + 1
    assert core._close_pending or not core._has_own_frames()


def test_packet_numbers_are_shared_and_never_repeat():
    pair = make_pair()
    core = pair.at_client._core
    numbers: list[int] = []
    one_by_one, in_bursts = core.recovery.on_packet_sent, core.recovery.note_sent

    def note_one(*, packet, space):
        if space is core._spaces[Epoch.ONE_RTT]:
            numbers.append(packet.packet_number)
        one_by_one(packet=packet, space=space)

    def note_burst(packets, space):
        numbers.extend(packet.packet_number for packet in packets)
        return in_bursts(packets, space)

    core.recovery.on_packet_sent, core.recovery.note_sent = note_one, note_burst
    for _ in range(5):
        core.ping()
        pair.at_client.datagram((b"x" * 500,), pair.link.now + 1)
        pair.run(0.05)
    assert len(numbers) >= 10
    assert numbers == sorted(set(numbers))


def test_key_update_in_the_middle():
    pair = make_pair()
    pair.run(0.5)
    for end in (pair.at_client, pair.at_server, pair.at_client):
        end._core.request_key_update()
        # aioquic drops packets of the old phase that were in flight: first let the update arrive.
        for other in (end, *({pair.at_client, pair.at_server} - {end})):
            other.datagram((b"payload",), pair.link.now + 1)
            pair.run(0.5)
    assert len(pair.server.told(DatagramReceived)) == len(pair.client.told(DatagramReceived)) == 3
    assert not pair.client.told(Closed)


def test_loss_is_counted_once_per_packet():
    dropped: list[bytes] = []

    def every_tenth(data: bytes) -> bool:
        if len(data) > 1000 and not data[0] & 0x80:
            dropped.append(data)
            return len(dropped) % 10 == 0
        return False

    pair = make_pair(weather=Weather(drop=every_tenth))
    stream = pair.at_client.open_uni()
    assert stream is not None
    pair.at_client.offer(stream, [bytes(200_000)], True)
    pair.run(5.0)
    assert sum(len(event.data) for event in pair.server.told(StreamData)) == 200_000
    lost = pair.at_client.statistics().packets_lost
    assert 0 < lost <= len(dropped) // 10 + 2


def test_closing_is_told_once_with_the_applications_code():
    pair = make_pair()
    pair.at_client.close(0x42, "enough")
    pair.run(5.0)
    (theirs,) = pair.server.told(Closed)
    (ours,) = pair.client.told(Closed)
    assert (theirs.code, theirs.reason, theirs.by_peer) == (0x42, "enough", True)
    assert (ours.code, ours.reason, ours.by_peer) == (0x42, "enough", False)
    assert pair.client.endpoint.statistics().connections == pair.server.endpoint.statistics().connections == 0
    pair.check()
