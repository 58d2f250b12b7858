"""Kopf as an informer: every event of an object we care about puts a key into the queue, and nothing else.

Only `on.event` handlers: with them kopf writes nothing to any object. It runs in a thread with an event loop of
its own, because it takes the signals of the main thread and ends every task that was started after it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import kopf

from penstock.core.objects import (
    CONFIG_MAP,
    DEPLOYMENT,
    HTTP_ROUTE,
    LABEL_MODEL,
    MODEL_DEPLOYMENT,
    POD,
    SERVICE,
    Kind,
)

from .workers import Key

log = logging.getLogger(__name__)

CHILDREN = (DEPLOYMENT, SERVICE, CONFIG_MAP, POD, HTTP_ROUTE)
"""Watched by our label, in the API server: other objects of these types never reach this process."""


_IDENTITY: Any = "penstock"


def registry(kinds: Sequence[Kind], changed: Callable[[Key], None]) -> kopf.OperatorRegistry:
    """Handlers for these types: an event calls `changed` with the ModelDeployment's key."""
    out = kopf.OperatorRegistry()

    async def own(namespace: str | None, name: str | None, **_: Any) -> None:
        if namespace and name:
            changed((namespace, name))

    async def child(namespace: str | None, labels: Mapping[str, str], **_: Any) -> None:
        if namespace and labels.get(LABEL_MODEL):
            changed((namespace, labels[LABEL_MODEL]))

    for kind in kinds:
        on_event = kopf.on.event(kind.group, kind.version, kind.plural, registry=out)
        on_event(own if kind == MODEL_DEPLOYMENT else child)
    kopf.on.login(registry=out)(_login)
    return out


def settings(kinds: Sequence[Kind]) -> kopf.OperatorSettings:
    """Kopf's settings: no peers, no Events, no looking around, dead watches noticed."""
    out = kopf.OperatorSettings()
    out.peering.standalone = True
    out.posting.enabled = False
    # Else it lists and watches CRDs and namespaces, which takes rights we do not need.
    out.scanning.disabled = True
    out.watching.server_timeout = 300
    out.watching.connect_timeout = 10
    out.networking.request_timeout = 30
    out.networking.connect_timeout = 10
    out.process.ultimate_exiting_timeout = None
    for kind in kinds:
        if kind != MODEL_DEPLOYMENT:
            out.watching.label_selectors[kind.group, kind.version, kind.plural] = LABEL_MODEL
    return out


def _login(**kwargs: Any) -> kopf.ConnectionInfo | None:
    if "KUBERNETES_SERVICE_HOST" in os.environ and not os.environ.get("KUBECONFIG"):
        return kopf.login_with_service_account(**kwargs)
    return kopf.login_via_client(**kwargs)


class Watcher:
    """One run of kopf in a thread of its own. All methods are the main loop's."""

    def __init__(self, kinds: Sequence[Kind], namespaces: Sequence[str], changed: Callable[[Key], None]) -> None:
        """`changed` is called in the loop that calls `start`. `namespaces` empty for all."""
        self._kinds = tuple(kinds)
        self._namespaces = tuple(namespaces)
        self._changed = changed
        self._stop = threading.Event()
        self._ready = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def ready(self) -> bool:
        """The types are known and the watches started."""
        return self._ready.is_set() and self._thread is not None and self._thread.is_alive()

    def start(self) -> asyncio.Future[None]:
        """Start the thread. The future is done when it has ended, with its error if there was one."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        self._thread = threading.Thread(target=self._run, args=(loop, ended), name="watcher", daemon=True)
        self._thread.start()
        return ended

    def stop(self) -> None:
        """Ask the thread to end."""
        self._stop.set()

    def _run(self, loop: asyncio.AbstractEventLoop, ended: asyncio.Future[None]) -> None:
        def tell(key: Key) -> None:
            loop.call_soon_threadsafe(self._changed, key)

        error: BaseException | None = None
        try:
            asyncio.run(
                kopf.operator(
                    registry=registry(self._kinds, tell),
                    settings=settings(self._kinds),
                    # Else it asks for the user's name, which an arbitrary uid has not.
                    identity=_IDENTITY,
                    clusterwide=not self._namespaces,
                    namespaces=self._namespaces,
                    stop_flag=self._stop,
                    ready_flag=self._ready,
                )
            )
        except BaseException as exc:  # noqa: BLE001 - it is carried to the main loop
            error = exc
        finally:
            # The loop may be closed: then nobody waits any more.
            if not loop.is_closed():
                loop.call_soon_threadsafe(_settle, ended, error)


def _settle(ended: asyncio.Future[None], error: BaseException | None) -> None:
    if ended.done():
        return
    if error is None:
        ended.set_result(None)
    else:
        ended.set_exception(error if isinstance(error, Exception) else RuntimeError(repr(error)))
