"""The operator's process: makes the parts and joins them. Nothing is decided here."""

from __future__ import annotations

import asyncio
import os
import sys
import uuid

import aiohttp

from penstock.adapters.bucket import TokenBucket
from penstock.adapters.clock import ServerClock
from penstock.adapters.inspect import HttpInspector
from penstock.adapters.kube import ClientSend, KubeCluster, close, connect
from penstock.adapters.lease import Elector, Terms
from penstock.adapters.prometheus import PrometheusMetrics
from penstock.adapters.recorder import EventRecorder
from penstock.adapters.scrape import ScrapeMetrics
from penstock.adapters.transport import Api, Patience
from penstock.ports import ClusterError
from penstock.shell.handlers import CHILDREN, Watcher
from penstock.shell.http import Health, application, serve
from penstock.shell.lifecycle import Parts, live
from penstock.shell.models import ModelMetrics
from penstock.shell.queue import WorkQueue
from penstock.shell.reconciler import Reconciler
from penstock.shell.resync import Resync
from penstock.shell.settings import InvalidSettings, Settings, load
from penstock.shell.telemetry import Telemetry, configure_logging
from penstock.shell.watching import Watching
from penstock.shell.workers import Key, Workers


async def run(settings: Settings) -> int:
    """The process's life; its exit status."""
    telemetry, health, clock, terms = Telemetry(), Health(), ServerClock(), Terms()
    identity = f"{settings.identity}_{uuid.uuid4().hex[:8]}"
    client = await connect()
    send, quick = ClientSend(client), ClientSend(client, connect=terms.request / 2, total=terms.request)
    seen = telemetry.kube_request
    writes = TokenBucket(settings.writes_per_second, 2 * settings.writes_per_second + 1)
    cluster = KubeCluster(Api(send, writes=writes, observe=seen, on_date=clock.observe))
    events = Api(send, patience=Patience(attempts=2, total=5), observe=seen)
    lease = Api(quick, patience=Patience(attempts=1), observe=seen)
    elector = Elector(lease, settings.lease_namespace, settings.lease_name, identity, terms=terms)
    queue: WorkQueue[Key] = WorkQueue(on_wait=telemetry.waited)
    telemetry.follow(lambda: len(queue), lambda: queue.running, lambda: clock.skew)
    namespaces = settings.namespaces
    watching = Watching(cluster, lambda kinds: Watcher(kinds, namespaces, queue.add_soon), CHILDREN, namespaces)
    health.readiness["watches"] = lambda: watching.ready
    source = settings.prometheus
    connector = source.connector() if source else None
    async with aiohttp.ClientSession(connector=connector) as session, aiohttp.ClientSession() as pods:
        metrics = PrometheusMetrics(session, clock, source) if source else ScrapeMetrics(pods, clock)
        recorder = EventRecorder(events, clock, identity, on_drop=telemetry.event_dropped)
        told = ModelMetrics(telemetry.registry).saw
        reconciler = Reconciler(cluster, metrics, HttpInspector(pods), recorder, clock, settings.rules, told)
        workers = Workers(queue, reconciler, clock, telemetry, count=settings.workers)
        resync = Resync(cluster, queue, clock, telemetry, namespaces=namespaces, period=settings.resync_seconds)
        server = await serve(application(health, telemetry), settings.http_port)
        try:
            return await live(Parts(queue, elector, health, telemetry, watching.run, workers.run, resync.run))
        finally:
            await server.cleanup()
            await close(client)


def main() -> int:
    """Start by the environment; the process's exit status."""
    try:
        settings = load(os.environ)
        configure_logging(settings.log_format, settings.log_level)
        return asyncio.run(run(settings))
    except (InvalidSettings, ClusterError, OSError) as exc:
        sys.stderr.write(f"penstock: {exc}\n")
        return 2 if isinstance(exc, InvalidSettings) else 1


if __name__ == "__main__":
    sys.exit(main())
