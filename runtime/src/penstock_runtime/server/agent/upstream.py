"""The server behind an agent: asking it, and whether it is ready."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from urllib.parse import quote

from penstock_runtime.log import event
from penstock_runtime.protocol.errors import Overloaded, ProtocolError, TimedOut, Unavailable
from penstock_runtime.protocol.metadata import read_metadata
from penstock_runtime.protocol.schema import ModelSchema
from penstock_runtime.server.agent import tfserving
from penstock_runtime.server.agent.paths import ProtocolName
from penstock_runtime.server.forward.http_client import Response
from penstock_runtime.server.forward.message import MIN_RESPONSE, request_head
from penstock_runtime.server.forward.setting import Address
from penstock_runtime.server.forward.target import NoAnswer, Target
from penstock_runtime.server.http import Header
from penstock_runtime.server.settings import Serving

logger = logging.getLogger(__name__)

# Seconds between two looks at the upstream.
LOOK_SECONDS = 1.0
# The same once it is ready: TensorFlow Serving counts each as a request of its own.
READY_LOOK_SECONDS: dict[ProtocolName, float] = {"oip": 1.0, "tfserving": 5.0}
# The most that an answer to a look may take, and how many in a row may be late: a server with one thread is
# silent for as long as its model runs.
ANSWER_SECONDS = 2.0
MAX_LATE = 3
_MAX_ANSWER = 4 * 2**20


class Upstream:
    """Requests to the upstream. All calls come from the event loop it was made on."""

    def __init__(self, address: Address, limits: Serving, on_failure: Callable[[], None]) -> None:
        """At most `limits.max_queue` requests are under way. `on_failure` is called whenever there was no answer."""
        most = max(MIN_RESPONSE, limits.max_body_bytes)
        self._target = Target(address, most, max(1, limits.max_queue), only=True)
        self._on_failure = on_failure

    async def ask(self, method: str, url: bytes, headers: Sequence[Header], body: bytes, seconds: float) -> Response:
        """Return its answer; raises ProtocolError: 429 if too many are under way, 502, 503 or, in time, 504.

        503 if there was no connection, so that nothing was done; 502 if it broke, or what came was no whole answer.
        """
        # An answer to HEAD has a length and no body, which the client here does not expect; uvicorn leaves it out.
        method = "GET" if method == "HEAD" else method
        head = request_head(method.encode(), url, self._target, headers, len(body))
        try:
            return await self._target.exchange((head, body), seconds)
        except NoAnswer as failure:
            if failure.reason == "busy":
                raise Overloaded from None
            self._on_failure()
            if failure.reason == "unreachable":
                raise Unavailable("the upstream server cannot be reached") from None
            what = "broke the connection" if failure.reason == "dropped" else "sent what is no answer"
            raise ProtocolError(f"the upstream server {what}", status=502) from None
        except TimeoutError:
            self._on_failure()
            raise TimedOut("the upstream server did not answer in time") from None

    def close(self) -> None:
        """Close all connections."""
        self._target.abort()


class Readiness:
    """Looks at the upstream now and then, so that probes cost it nothing."""

    def __init__(self, address: Address, model: str, protocol: ProtocolName | None) -> None:
        """Nothing is known yet. `protocol` None: it is the first by which the model is found."""
        # Connections of its own: it must get through where requests have taken all.
        self._target = Target(address, _MAX_ANSWER, 2, only=True)
        self._model = quote(model, safe="").encode()
        self.protocol = protocol
        self.why_not: str | None = "the upstream server has not answered yet"
        # Names, types and shapes, once the upstream has told them.
        self.schema: ModelSchema | None = None
        self.version: str | None = None
        self._has_told = False
        self._late = 0
        self._doubt = asyncio.Event()

    def doubt(self) -> None:
        """Look soon."""
        self._doubt.set()

    async def follow(self, on_change: Callable[[], None]) -> None:
        """Look for ever; `on_change` is called when it has become ready, ceased to be, or told its schema."""
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            before, schema = self.why_not, self.schema
            why = await self._look()
            if why is None and not self._has_told:
                await self._learn()
            self.why_not = why
            if why != before:
                self._tell(before)
            if (why is None) != (before is None) or self.schema is not schema:
                on_change()
            await self._pause(began)

    async def _pause(self, began: float) -> None:
        loop = asyncio.get_running_loop()
        ready = self.why_not is None and self.protocol is not None
        seconds = READY_LOOK_SECONDS[self.protocol] if ready and self.protocol is not None else LOOK_SECONDS
        with suppress(TimeoutError):
            async with asyncio.timeout_at(began + seconds):
                await self._doubt.wait()
        # Never more than one in a second, however many requests fail.
        await asyncio.sleep(max(0.0, began + LOOK_SECONDS - loop.time()))
        self._doubt.clear()

    def _tell(self, before: str | None) -> None:
        if self.why_not is None:
            event(logger, "the upstream is ready", protocol=self.protocol)
        else:
            level = logging.WARNING if before is None else logging.INFO
            event(logger, "the upstream is not ready", level=level, why=self.why_not)
            # Another one may be there when it is back.
            self._has_told = False

    async def _look(self) -> str | None:
        """Return why it is not ready, None if it is."""
        try:
            why = await self._ask_state()
        except NoAnswer as failure:
            self._late = 0
            return f"the upstream server cannot be asked: {failure.reason}"
        except TimeoutError:
            self._late += 1
            if self._late < MAX_LATE:
                return self.why_not
            return f"the upstream server does not answer within {ANSWER_SECONDS:g} s"
        self._late = 0
        return why

    async def _ask_state(self) -> str | None:
        if self.protocol == "oip":
            return await self._ask_oip()
        if self.protocol == "tfserving":
            return await self._ask_tfserving()
        if (why := await self._ask_oip()) is None:
            self.protocol = "oip"
            return None
        if (other := await self._ask_tfserving()) is None:
            self.protocol = "tfserving"
            return None
        return f"{why}; or {other}"

    async def _ask_oip(self) -> str | None:
        for url in (b"/v2/health/ready", b"/v2/models/%b/ready" % self._model):
            response = await self._get(url)
            if not _is_success(response):
                return f"GET {url.decode()} is answered with {response.status}"
        return None

    async def _ask_tfserving(self) -> str | None:
        url = b"/v1/models/" + self._model
        response = await self._get(url)
        if not _is_success(response):
            return f"GET {url.decode()} is answered with {response.status}"
        try:
            return tfserving.why_not_available(response.body)
        except ValueError as error:
            return f"GET {url.decode()}: {error}"

    async def _learn(self) -> None:
        """Ask for the schema, which a server need not tell."""
        with suppress(NoAnswer, TimeoutError):
            if self.protocol == "oip":
                response = await self._get(b"/v2/models/" + self._model)
            else:
                response = await self._get(b"/v1/models/%b/metadata" % self._model)
            self._has_told = True
            self.schema = None
            if not _is_success(response):
                return
            try:
                if self.protocol == "oip":
                    self.schema = read_metadata(response.body)
                else:
                    self.version, self.schema = tfserving.read_metadata(response.body)
            except ValueError as error:
                event(logger, "the upstream does not tell the model's schema", error=str(error)[:200])

    async def _get(self, url: bytes) -> Response:
        return await self._target.exchange((request_head(b"GET", url, self._target, (), 0),), ANSWER_SECONDS)

    def close(self) -> None:
        """Close its connections."""
        self._target.abort()


def _is_success(response: Response) -> bool:
    return 200 <= response.status < 300
