"""The client: one request sent, one exchange returned."""

import asyncio
import math
import os
import ssl
import sys
import time
import zlib
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from multidict import CIMultiDict

from batchrun.client import trust
from batchrun.client.calls import Calls
from batchrun.client.preflight import reach
from batchrun.client.recipe import recipe
from batchrun.client.session import SessionWire
from batchrun.client.trust import Target, secret_values
from batchrun.client.wire import MAX_REPLY_BYTES, NO_RECIPE, UNSENT, WIRE_ERRORS, Recipe, Token, Verdict, Wire, explain
from batchrun.errors import HostError, RefusedError
from batchrun.models import Exchange, Fault, Request, made
from batchrun.secrecy import Mask

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_NO_HEADERS: Mapping[str, str] = CIMultiDict()
PREFLIGHT_SECONDS = 20.0

# seconds by which a deadline is late if the process was suspended; a busy loop is late by hundredths
LATE = 0.25
# seconds to read then what arrived meanwhile
GRACE = 1.0


class Client:
    """`headers` win over the client's own. The caller limits the requests in flight.

    Raises RefusedError for a key, a header, an address or a CA file that cannot work or must not be used.
    """

    def __init__(  # noqa: PLR0913 # settings of a profile, each by name
        self,
        *,
        base_url: str,
        api_key: str | None = None,
        token: Token | None = None,
        headers: Mapping[str, str] | None = None,
        ca_file: str | None = None,
        tls_context: Callable[[str | None], ssl.SSLContext] = trust.tls_context,
        allow_insecure_http: bool = False,
        environ: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
        max_reply_bytes: int = MAX_REPLY_BYTES,
    ) -> None:
        if api_key and token is not None:
            raise RefusedError("Both a key and a source of tokens are given.", "Give one of them.")
        self._url = trust.parse_base_url(base_url)
        self._api_key = api_key or None
        self._token = token
        self._headers = dict(headers or {})
        self._check_secrets(allow_insecure_http)
        self._proxy = trust.proxy_for(self._url, os.environ if environ is None else environ)
        self._tls = tls_context(ca_file) if self._url.scheme == "https" else None
        self._clock = clock
        self._max_reply_bytes = max_reply_bytes
        proxy_secrets = [] if self._proxy is None else [self._proxy.raw_password or "", self._proxy.password or ""]
        self._mask = Mask([self._api_key or "", *secret_values(self._headers.items()), *proxy_secrets])
        self._wire: Wire | None = None
        self._deadlines = _Deadlines()

    def _check_secrets(self, allow_insecure_http: bool) -> None:
        if self._api_key is not None:
            trust.check_key(self._api_key)
        trust.check_headers(self._headers)
        secret = self._api_key is not None or self._token is not None or bool(secret_values(self._headers.items()))
        trust.check_plain_http(self._url, secret=secret, allowed=allow_insecure_http)

    def describe(self) -> Target:
        proxy = None if self._proxy is None else f"{self._proxy.scheme}://{trust.authority(self._proxy)}"
        return Target(trust.authority(self._url), proxy)

    def mask(self, text: str) -> str:
        return self._mask.text(text)

    def prepare(self) -> None:
        # once; importing the SDK takes 0.4 s
        if self._wire is not None:
            return
        if self._token is None:
            self._wire = self._session(recipe(str(self._url), self._api_key, self._headers))
        else:
            from batchrun.client import sdk  # noqa: PLC0415 # imports the SDK

            session = self._session(NO_RECIPE)
            self._wire = sdk.SdkWire(session, str(self._url), self._masked(self._token), self._headers)

    def _session(self, recipe: Recipe) -> SessionWire:
        return SessionWire(recipe, tls=self._tls, proxy=self._proxy, max_reply_bytes=self._max_reply_bytes)

    def _masked(self, source: Token) -> Token:
        async def token() -> str:
            value = await source()
            self._mask.add(value)
            return value

        return token

    async def __aenter__(self) -> Self:
        if self._wire is None:
            await asyncio.to_thread(self.prepare)
        assert self._wire is not None, "prepare makes the wire"
        await self._wire.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._wire is not None, "the client was entered"
        await self._wire.close()

    async def preflight(self, *, seconds: float = PREFLIGHT_SECONDS) -> None:
        """Raises HostError."""
        await reach(self._url, self._proxy, self._tls, seconds=seconds)

    async def reachable(self, *, seconds: float) -> bool:
        try:
            await self.preflight(seconds=seconds)
        except HostError:
            return False
        return True

    def renew(self) -> None:
        if self._wire is not None:
            self._wire.renew()

    def end(self, *, before: float) -> int:
        old = [deadline for deadline in self._deadlines.under_way if deadline.left < before]
        for deadline in old:
            deadline.fire(Fault.OUTAGE)
        return len(old)

    def calls(self, key_header: str | None = None) -> Calls:
        token = None if self._token is None else self._masked(self._token)
        common = recipe(str(self._url), self._api_key, self._headers).headers
        lasting = {name: value for name, value in common.items() if name.lower() != "content-type"}

        if key_header is not None and self._api_key is not None:
            lasting = {name: value for name, value in lasting.items() if name.lower() != "authorization"}
            lasting[key_header] = self._api_key

        async def headers() -> Mapping[str, str]:
            return lasting if token is None else {**lasting, "authorization": f"Bearer {await token()}"}

        return Calls(
            base_url=self._url,
            headers=headers,
            tls=self._tls,
            proxy=self._proxy,
            mask=self._mask.text,
            clock=self._clock,
        )

    @property
    def is_own_server(self) -> bool:
        return trust.is_private(self._url)

    def open_calls(self) -> Calls:
        async def nothing() -> Mapping[str, str]:
            return _NO_HEADERS

        return Calls(
            base_url=self._url.origin(),
            headers=nothing,
            tls=self._tls,
            proxy=self._proxy,
            mask=self._mask.text,
            clock=self._clock,
        )

    def space(self, spaced: Callable[[], bool]) -> None: ...

    async def send(self, request: Request, *, timeout: float) -> Exchange:  # noqa: ASYNC109 # one timer is cheaper than asyncio.timeout by a tenth of a request
        """`timeout` is the total in seconds.

        Failures of the wire are in the Exchange; what a source of tokens raises passes through.
        """
        wire = self._wire
        assert wire is not None, "the client was entered"
        left = self._clock()
        deadline = self._deadlines.begin(timeout, left)
        try:
            status, headers, body = await wire.post(request.endpoint, bytes(request.body))
        except (asyncio.CancelledError, *WIRE_ERRORS) as error:
            return self._without_answer(error, deadline, left)
        finally:
            self._deadlines.end(deadline)
        if body[:1] in COMPRESSED:
            body = undone(body, self._max_reply_bytes)
        return made(Exchange, (status, headers, body, left, self._clock(), None, "", True))

    def _without_answer(self, error: BaseException, deadline: "_Deadline", left: float) -> Exchange:
        if deadline.caused(error):
            fault, detail, sent = _late(error, deadline)
        elif isinstance(error, asyncio.CancelledError):
            raise error
        else:
            fault, detail, sent = explain(error)
        return Exchange(0, _NO_HEADERS, b"", left, self._clock(), fault, self._mask.text(detail), sent)


def _late(error: BaseException, deadline: "_Deadline") -> Verdict:
    sent = UNSENT not in error.args
    if deadline.fault is Fault.OUTAGE:
        return Verdict(Fault.OUTAGE, "the provider was down, and this request was sent before", sent=sent)
    if not sent:
        return Verdict(Fault.CONNECT, f"no connection within {deadline.seconds:g} s", sent=False)
    return Verdict(Fault.DEADLINE, f"no complete answer within {deadline.seconds:g} s", sent=True)


class _Deadline:
    __slots__ = ("_before", "_task", "due", "extended", "fault", "left", "seconds")

    def __init__(self, task: asyncio.Task[Any], seconds: float, due: float, left: float) -> None:
        self._task = task
        self._before = task.cancelling()
        self.seconds = seconds
        self.due = due
        self.left = left
        self.fault: Fault | None = None
        self.extended = False

    def fire(self, fault: Fault) -> None:
        if self.fault is None:
            self.fault = fault
            self._task.cancel()

    def caused(self, error: BaseException) -> bool:
        """Raises `error` if something else cancelled the task too."""
        if self.fault is None:
            return False
        if self._task.uncancel() > self._before:
            raise error if isinstance(error, asyncio.CancelledError) else asyncio.CancelledError from error
        return True


class _Deadlines:
    """One timer for all exchanges, several times cheaper than one each.

    A deadline that is late by `LATE` was delayed by a suspended process: a paid answer may wait in the socket, so the
    exchange gets `GRACE`, once.
    """

    def __init__(self) -> None:
        self.under_way: dict[_Deadline, None] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._next = math.inf  # when the timer goes off, in the loop's time

    def begin(self, seconds: float, left: float) -> _Deadline:
        loop = self._loop = self._loop or asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None, "an exchange runs in a task"
        deadline = _Deadline(task, seconds, loop.time() + seconds, left)
        self.under_way[deadline] = None
        if deadline.due < self._next:
            self._arm(loop, deadline.due)
        return deadline

    def end(self, deadline: _Deadline) -> None:
        del self.under_way[deadline]
        if not self.under_way and self._timer is not None:
            self._timer.cancel()
            self._timer, self._next = None, math.inf

    def _arm(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._next, self._timer = due, loop.call_at(due, self._fire_due, loop)

    def _fire_due(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        self._timer, self._next = None, math.inf
        for deadline in self.under_way:
            if deadline.due > now:
                continue
            if deadline.extended or now - deadline.due <= LATE:
                deadline.fire(Fault.DEADLINE)
            else:
                deadline.extended, deadline.due = True, now + GRACE
        due = min((deadline.due for deadline in self.under_way if deadline.fault is None), default=math.inf)
        if due < math.inf:
            self._arm(loop, due)


_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
# first bytes; JSON never starts with them
COMPRESSED = frozenset({_GZIP[:1], _ZSTD[:1]})


def undone(body: bytes, most: int) -> bytes:
    """Gzip and zstd without a header; unchanged if broken or larger than `most`."""
    try:
        if body.startswith(_GZIP):
            unpacker = zlib.decompressobj(wbits=31)
            plain, whole = unpacker.decompress(body, most), unpacker.eof
        elif body.startswith(_ZSTD):
            frame = zstd.ZstdDecompressor()
            plain, whole = frame.decompress(body, most), frame.eof
        else:
            return body
    except (zlib.error, zstd.ZstdError):
        return body
    return plain if whole else body
