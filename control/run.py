"""EDGE: one controller as a process: files, sockets, store and listeners around a `Plane`, put together in order.

It ends on SIGTERM or SIGINT, and with code 1 where its store cannot be written: relays go on with their tables either
way, and whoever watches the process starts it again.
"""

from __future__ import annotations

import base64
import gc
import json
import logging
import secrets
import signal
import sys
import time
import tomllib
from functools import partial
from pathlib import Path

import trio

from control.api import Api
from control.config import Config, parse_place, warnings
from control.controller import Controller
from control.links import ALPN, Links
from control.metrics import Metrics
from control.placement import Placement
from control.plane import Plane, PlaneSettings
from control.publishing import Signing
from control.registry.values import Place
from control.state import State, StoreError
from control.store import SqliteStore
from tradewind import logs
from tradewind.contract.admission import Signer, announced_key, signer
from tradewind.contract.identity import (
    Authority,
    IdentityError,
    NodeIdentity,
    parse_authority,
    parse_pem_certificate,
    parse_pem_key,
)
from tradewind.contract.ids import Role
from tradewind.contract.token import Key, KeyFormatError, generate_key, parse_keys, public_key, split_path
from tradewind.keys import KeyMaterialError, Watched, token_keys, watch
from tradewind.locations import locations
from tradewind.metering import Histogram
from tradewind.placing.locating import Locator
from tradewind.placing.policy import Policy, PolicyError, parse_policy
from tradewind.quic.config import Limits, QuicSettings, load_certificate
from tradewind.quic.endpoint import Endpoint
from tradewind.quic.udp import UdpSocket
from tradewind.settings.values import Address

KEYS_POLL_S = 5.0
LAG_PERIOD_S = 0.5
COLLECTIONS = (700, 10, 100_000)
"""When Python looks for cycles: what is young often, all that lives only when `COLLECT_EVERY_S` says so."""
COLLECT_EVERY_S = 600.0
"""Looking through all that 500 links hold takes 100 ms and more, in which nobody is answered. By its defaults Python
does that whenever a quarter more has come to live."""
_LIMITS = Limits(
    idle_timeout_s=10.0,
    control_backlog_bytes=16 * 2**20,
    stream_window_bytes=2**20,
    bidi_streams=4,
    uni_streams=4,
    pending_handshakes_per_address=512,
)


class SetupError(Exception):
    """Something that the settings name cannot be used; says what and why."""


def main(config: Config) -> int:
    """Run a controller until it is told to stop; returns the exit code."""
    logger = logs.configure("control", config.log.level, config.log.format)
    for warning in warnings(config):
        logger.warning(warning)
    try:
        return trio.run(_run, config, logger)
    except (SetupError, KeyMaterialError, StoreError) as error:
        logger.error("cannot start", extra={"reason": str(error)})
    except OSError as error:
        logger.error("a listener cannot be opened", extra={"reason": str(error)})
    return 1


async def _run(config: Config, logger: logging.Logger) -> int:
    """Papers, keys, sockets, listeners, store, plane, loops, in this order; then wait for a signal and stop."""
    wall_now = time.time()
    authority, me, signing, pems = _papers(config, wall_now)
    access_keys, operator_keys = token_keys(config.place.keys), token_keys(config.operators.keys)
    place_key, place_public = _place_key(config, me.id)
    prefixes = locations(config.place.prefixes)
    placement = _placement(config, place_key, access_keys.load(wall_now), prefixes.load(wall_now))
    quic = QuicSettings(protocols=(ALPN,), webtransport=False, certificate=load_certificate(*pems), limits=_LIMITS)
    sockets = [UdpSocket(address.host, address.port) for address in config.control.listen]
    operators = await _listen(config.http.ops)
    public = await _listen(config.http.public)
    # Last of what may fail: a term is begun only where there is a controller to use it.
    store, state = await trio.to_thread.run_sync(_open_store, str(config.control.state), wall_now)
    settings = PlaneSettings(
        mesh=me.mesh,
        id=me.id,
        rooms=tuple(split_path(room) for room in config.control.rooms),
        placement_keys=(place_public,),
        markets=_policy(config).markets,
        places=_places(config),
    )
    plane = Plane(settings, state, signing, placement, trio.current_time(), time.time())
    ports = [(socket, Endpoint(quic), Links(authority, partial(secrets.token_bytes, 32))) for socket in sockets]
    metrics = Metrics()
    controller = Controller(plane, store, ports, metrics)
    api = Api(controller, operator_keys.load(wall_now))
    ops_server, public_server = api.servers()
    async with trio.open_nursery() as nursery:
        for port in range(len(ports)):
            nursery.start_soon(controller.serve_socket, port)
        nursery.start_soon(controller.keep_time)
        nursery.start_soon(controller.keep_saving)
        nursery.start_soon(_measure_lag, metrics.turns.lag)
        _watch_keys(nursery, api, placement, place_key, access_keys, operator_keys)
        nursery.start_soon(watch, prefixes, KEYS_POLL_S, partial(_use_locations, placement), _tell_failed)
        if operators:
            nursery.start_soon(ops_server.serve, operators)
        if public:
            nursery.start_soon(public_server.serve, public)
        gc.collect()
        gc.freeze()
        gc.set_threshold(*COLLECTIONS)
        nursery.start_soon(_collect_seldom)
        _say_ready(me, state, sockets, operators)
        nursery.start_soon(_stop_on_signal, controller)
        await controller.ended.wait()
        nursery.cancel_scope.cancel()
    for socket, endpoint, _ in ports:
        endpoint.close_all(0, "the controller stops", trio.current_time())
        socket.send(endpoint.datagrams_to_send(trio.current_time()))
        socket.close()
    store.close()
    if controller.failed is not None:
        logger.error("the store cannot be written", extra={"reason": str(controller.failed)})
        return 1
    logger.info("stopped")
    return 0


async def _stop_on_signal(controller: Controller) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        await anext(signals)
    controller.ended.set()


async def _collect_seldom() -> None:
    while True:
        await trio.sleep(COLLECT_EVERY_S)
        gc.collect()


async def _measure_lag(lag: Histogram) -> None:
    while True:
        due = trio.current_time() + LAG_PERIOD_S
        await trio.sleep_until(due)
        lag.observe(trio.current_time() - due)


async def _listen(address: Address | None) -> list[trio.SocketListener]:
    return [] if address is None else await trio.open_tcp_listeners(address.port, host=address.host, backlog=256)


def _watch_keys(
    nursery: trio.Nursery,
    api: Api,
    placement: Placement,
    place_key: Signer,
    access_keys: Watched[tuple[Key, ...]],
    operator_keys: Watched[tuple[Key, ...]],
) -> None:
    logger = logging.getLogger("control")

    def new_access(keys: tuple[Key, ...]) -> None:
        placement.replace_keys(place_key, keys)
        logger.info("access keys changed", extra={"keys": len(keys)})

    def new_operators(keys: tuple[Key, ...]) -> None:
        api.operator_keys = keys
        logger.info("operators' keys changed", extra={"keys": len(keys)})

    nursery.start_soon(watch, access_keys, KEYS_POLL_S, new_access, _tell_failed)
    nursery.start_soon(watch, operator_keys, KEYS_POLL_S, new_operators, _tell_failed)


def _use_locations(placement: Placement, locator: Locator | None) -> None:
    placement.replace_locator(locator)
    logging.getLogger("control").info("locations changed")


def _tell_failed(error: KeyMaterialError) -> None:
    logging.getLogger("control").error("changed files cannot be used", extra={"reason": str(error)})


# --- What settings name ---


def _papers(config: Config, wall_now: float) -> tuple[Authority, NodeIdentity, Signing, tuple[bytes, bytes]]:
    """Who may be here, who we are, what we sign with, and the same for TLS."""
    authority_pem = _read(str(config.mesh.ca))
    certificate_pem, key_pem = _read(str(config.mesh.cert)), _read(str(config.mesh.key))
    try:
        authority = parse_authority(authority_pem)
        certificate, key = parse_pem_certificate(certificate_pem), parse_pem_key(key_pem)
        me = authority.verify(certificate, wall_now, role=Role.CONTROLLER)
    except IdentityError as error:
        raise SetupError(f"{config.mesh.ca}, {config.mesh.cert}, {config.mesh.key}: {error}") from error
    return authority, me, Signing(key, certificate), (certificate_pem, key_pem)


def _place_key(config: Config, id: str) -> tuple[Signer, str]:
    """What placement tokens are signed with, and its public half for the relays."""
    if config.place.signing is None:
        document = generate_key("EdDSA", f"{id}-{secrets.token_hex(4)}")
        (key,) = parse_keys(json.dumps(document))
        return signer(key), json.dumps(public_key(document))
    try:
        text = _read(config.place.signing).decode()
        (key,) = parse_keys(text, Path(config.place.signing).stem)
        made = signer(key)
    except (KeyFormatError, ValueError) as error:
        raise SetupError(f"{config.place.signing}: {error}") from error
    public = {"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": made.id, "key_ops": ["verify"]}
    return made, json.dumps({**public, "x": _base64url(announced_key(made))})


def _placement(config: Config, place_key: Signer, keys: tuple[Key, ...], locator: Locator | None) -> Placement:
    return Placement(_policy(config), place_key, keys, locator, reload=config.place.reload)


def _policy(config: Config) -> Policy:
    if config.place.policy is None:
        return Policy()
    try:
        return parse_policy(tomllib.loads(_read(config.place.policy).decode()))
    except (PolicyError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SetupError(f"{config.place.policy}: {error}") from error


def _places(config: Config) -> dict[str, Place]:
    found = filter(None, map(parse_place, config.control.places))
    return {id: Place(latitude, longitude) for id, latitude, longitude in found}


def _open_store(path: str, wall_now: float) -> tuple[SqliteStore, State]:
    store = SqliteStore(Path(path))
    return store, store.load(wall_now)


def _read(name: str) -> bytes:
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise SetupError(f"{name}: {error.strerror}") from error


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _say_ready(me: NodeIdentity, state: State, sockets: list[UdpSocket], operators: list[trio.SocketListener]) -> None:
    """One line that says ready, and where."""
    where = " ".join(str(Address(str(socket.address[0]), socket.address[1])) for socket in sockets)
    seen = [Address(*listener.socket.getsockname()[:2]) for listener in operators]
    observed = "".join(f", ops http://{address}" for address in seen)
    sys.stdout.write(f"ready: controller {me.id} of {me.mesh} on udp {where}{observed}, term {state.term}\n")
    sys.stdout.flush()
