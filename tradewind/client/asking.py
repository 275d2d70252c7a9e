"""A placed viewer's questions: `/v1/place` at controllers and relays, one by one. Part of the client's EDGE."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import trio

from tradewind.client.choices import Answer, AnswerError, Patience, Refusal, read_answer, read_refusal
from tradewind.http_get import GetFailed, get
from tradewind.quic.config import ServerTrust

MAX_ENDPOINTS = 16


@dataclass(frozen=True, slots=True)
class Asked:
    """What came of a question."""

    said: Answer | Refusal
    endpoint: str
    """Who said it; empty where nobody did."""


@lru_cache(maxsize=8)
def http_trust(trust: ServerTrust) -> ssl.SSLContext:
    """How those who are asked over https prove who they are: as relays do, but for a pin, which is one relay's own."""
    context = ssl.create_default_context(
        cadata=trust.authorities_pem.decode("ascii") if trust.authorities_pem is not None else None
    )
    if not trust.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


async def ask(
    endpoints: Sequence[str], query: str, patience: Patience, tls: ssl.SSLContext | None, source: str | None
) -> Asked:
    """Ask until somebody answers: the next one where one fails, and beside one that is slow. Never raises."""
    sender, receiver = trio.open_memory_channel[tuple[str, Answer | Refusal]](MAX_ENDPOINTS)

    async def ask_one(endpoint: str) -> None:
        await sender.send((endpoint, await _ask_one(f"{endpoint}?{query}", patience, tls, source)))

    refused: Asked | None = None
    waiting = list(endpoints[:MAX_ENDPOINTS])
    open_count = 0
    async with trio.open_nursery() as nursery:
        while waiting or open_count:
            if waiting:
                nursery.start_soon(ask_one, waiting.pop(0))
                open_count += 1
            told = None
            with trio.move_on_after(patience.ask_hedge_s if waiting else float("inf")):
                told = await receiver.receive()
            if told is None:
                continue
            open_count -= 1
            endpoint, said = told
            asked = Asked(said, endpoint)
            if isinstance(said, Answer) or said.is_final:
                nursery.cancel_scope.cancel()
                return asked
            if refused is None or said.retry_s:
                refused = asked
    return refused or Asked(Refusal("nobody to ask"), "")


async def _ask_one(url: str, patience: Patience, tls: ssl.SSLContext | None, source: str | None) -> Answer | Refusal:
    try:
        got = await get(url, timeout_s=patience.answer_s, tls=tls, source=source)
    except GetFailed as error:
        return Refusal(str(error))
    if got.status != 200:
        return read_refusal(got.status, got.body)
    try:
        return read_answer(got.body, patience.ttl_s)
    except AnswerError as error:
        return Refusal(str(error))
