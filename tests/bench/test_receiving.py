"""The cheap receiver against a server of bare aioquic: it gets what was sent, and the server believes that it did."""

from __future__ import annotations

from typing import Any

import pytest
from aioquic.buffer import Buffer  # type: ignore[attr-defined]
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet import decode_packet_number
from aioquic.tls import CipherSuite, Epoch
from hypothesis import given
from hypothesis import strategies as st

from bench.dialing import client_configuration, keys_of
from bench.load import SHAPES, Media
from bench.receiving import ACK_POLICIES, Broken, Receiver, pull, varint, widen
from tests.quic.certificates import CERTIFICATE
from tradewind.moqt.profiles import PROFILES

CLIENT, SERVER = ("192.0.2.2", 1), ("192.0.2.1", 443)


class Scene:
    """A server that has just finished its handshake, and a receiver that took over from its client."""

    def __init__(self, policy: str = "timer") -> None:
        client = QuicConnection(configuration=client_configuration("fan-out"))
        configuration = QuicConfiguration(
            is_client=False,
            alpn_protocols=["fan-out"],
            cipher_suites=[CipherSuite.AES_128_GCM_SHA256],
            max_datagram_frame_size=65536,
            max_datagram_size=1232,
        )
        configuration.certificate, configuration.private_key = CERTIFICATE.chain[0], CERTIFICATE.key
        configuration.certificate_chain = list(CERTIFICATE.chain[1:])
        self.now = 1.0
        client.connect(SERVER, self.now)
        self.server = QuicConnection(
            configuration=configuration, original_destination_connection_id=client.original_destination_connection_id
        )
        for _ in range(8):
            for data, _ in client.datagrams_to_send(self.now):
                self.server.receive_datagram(data, CLIENT, self.now)
            for data, _ in self.server.datagrams_to_send(self.now):
                client.receive_datagram(data, SERVER, self.now)
            self.now += 0.01
        self.server._loss._cc.congestion_window = 1 << 20
        self.server._loss._pacer.packet_time = None
        self.arrived: list[tuple[int, int, int]] = []
        self.receiver = Receiver(0, keys_of(client), ACK_POLICIES[policy], self._take, keep=True)

    def packets(self) -> list[bytes]:
        self.now += 0.01
        return [data for data, _ in self.server.datagrams_to_send(self.now)]

    def give(self, packets: list[bytes]) -> int:
        """Hand packets over and acknowledgements back as the policy says; returns how many of those."""
        acks = 0
        for data in packets:
            if self.receiver.receive(data, self.now):
                acks += self._acknowledge()
        self.receiver.check_invariants()
        if self.receiver.ack_at is not None:
            acks += self._acknowledge()
        return acks

    @property
    def unacknowledged(self) -> int:
        return self.server._spaces[Epoch.ONE_RTT].ack_eliciting_in_flight

    def _acknowledge(self) -> int:
        self.server.receive_datagram(self.receiver.ack(self.now), CLIENT, self.now + 0.001)
        return 1

    def _take(self, index: int, group: int, number: int, size: int, now: float) -> None:
        self.arrived.append((group, number, size))


def media(shape: str) -> Media:
    return Media(SHAPES[shape], PROFILES["moqt-20"], 1)


def send_object(scene: Scene, group: int) -> bytes:
    data = media("objects").stream(group)
    scene.server.send_stream_data(scene.server.get_next_available_stream_id(is_unidirectional=True), data, True)
    return data


def test_datagrams_arrive_and_are_acknowledged_once_a_burst() -> None:
    scene = Scene()
    sent = [media("datagrams").datagram(group) for group in range(10)]
    for data in sent:
        scene.server.send_datagram_frame(data)
    assert scene.give(scene.packets()) == 1
    assert scene.arrived == [(group, 0, 1200) for group in range(10)]
    assert scene.receiver.kept == {(group, 0): data for group, data in enumerate(sent)}
    assert scene.unacknowledged == 0


def test_every_second_packet_is_acknowledged_where_the_policy_says_so() -> None:
    scene = Scene("second")
    for group in range(9):
        scene.server.send_datagram_frame(media("datagrams").datagram(group))
    assert scene.give(scene.packets()) == 5
    assert scene.unacknowledged == 0


@pytest.mark.parametrize("order", ["as sent", "backwards", "each twice", "last first"])
def test_a_stream_arrives_whole_in_any_order(order: str) -> None:
    scene = Scene()
    data = send_object(scene, 7)
    packets = scene.packets()
    assert len(packets) == 17
    match order:
        case "backwards":
            packets.reverse()
        case "each twice":
            packets = [packet for packet in packets for _ in range(2)]
        case "last first":
            packets = packets[-1:] + packets[:-1]
    scene.give(packets)
    assert scene.arrived == [(7, 0, len(data))]
    assert scene.receiver.kept == {(7, 0): data}
    assert scene.receiver.unfinished == scene.unacknowledged == 0


def test_what_was_lost_comes_again_and_counts_once() -> None:
    scene = Scene()
    data = send_object(scene, 1)
    packets = scene.packets()
    scene.give(packets[:3] + packets[5:])
    assert scene.arrived == []
    for _ in range(20):
        scene.give(scene.packets())
        if scene.arrived:
            break
        timer = scene.server.get_timer()
        if timer is not None:
            scene.now = max(scene.now, timer)
            scene.server.handle_timer(scene.now)
    scene.give(packets[3:5])
    assert scene.arrived == [(1, 0, len(data))]
    assert scene.receiver.kept == {(1, 0): data}


def test_the_servers_key_update_is_followed() -> None:
    scene = Scene()
    scene.server.request_key_update()
    scene.server.send_datagram_frame(media("datagrams").datagram(3))
    scene.give(scene.packets())
    assert scene.arrived == [(3, 0, 1200)]
    assert scene.unacknowledged == 0


def test_the_servers_goodbye_is_told() -> None:
    scene = Scene()
    scene.server.close(error_code=5)
    with pytest.raises(Broken, match="0x5"):
        scene.give(scene.packets())


def test_our_goodbye_and_our_sign_of_life() -> None:
    scene = Scene()
    scene.server.receive_datagram(scene.receiver.ping(), CLIENT, scene.now)
    assert not scene.server._close_event
    scene.server.receive_datagram(scene.receiver.close(), CLIENT, scene.now)
    event: Any = scene.server._close_event
    assert event is not None and event.error_code == 0


@given(st.integers(0, 2**62 - 1))
def test_integers_are_aioquics(value: int) -> None:
    data = varint(value)
    assert pull(data + b"rest", 0) == (value, len(data))
    assert Buffer(data=data).pull_uint_var() == value


@given(st.integers(0, 2**40), st.integers(-100, 100), st.sampled_from([8, 16, 24, 32]))
def test_packet_numbers_are_aioquics(expected: int, distance: int, bits: int) -> None:
    truncated = max(expected + distance, 0) & ((1 << bits) - 1)
    assert widen(truncated, bits, expected) == decode_packet_number(truncated, bits, expected)
