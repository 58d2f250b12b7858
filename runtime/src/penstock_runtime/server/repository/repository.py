"""The models that a server has, and how they come and go while it serves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from penstock_runtime.engine.errors import ModelLoadError
from penstock_runtime.engine.locate import ModelFile, is_model_name, locate_models, locate_versions
from penstock_runtime.log import event
from penstock_runtime.protocol.errors import ProtocolError
from penstock_runtime.server.feedback.ids import Issuer
from penstock_runtime.server.feedback.intake import Intake
from penstock_runtime.server.feedback.keys import Keys
from penstock_runtime.server.feedback.ledger import Ledger
from penstock_runtime.server.feedback.tally import Tally
from penstock_runtime.server.measured import find_model
from penstock_runtime.server.metrics import Metrics
from penstock_runtime.server.repository.judging import Judging
from penstock_runtime.server.repository.loading import load_version
from penstock_runtime.server.repository.model import Model
from penstock_runtime.server.serving import Serving
from penstock_runtime.server.settings import Feedback, Settings

logger = logging.getLogger(__name__)

# How often an exchanged version is asked whether its last request has left it, seconds.
RETIRE_POLL_SECONDS = 0.05


class Repository:
    """All models of one process: one at a path, or every folder of a model repository.

    A model is exchanged while it serves: the new version is loaded, warmed and tested beside the old one, takes
    all requests from one moment on, and the old one is let go once its last request is answered. If loading
    fails, nothing has changed.
    """

    def __init__(self, settings: Settings, keys: Keys, feedback: Feedback, cohort: str) -> None:
        """Know the models by name; `load_all` loads them. Raises ModelLoadError if there is no repository."""
        self._settings = settings
        self._keys = keys
        self._cohort = cohort
        self._judging = Judging(settings.feedback, feedback)
        self._loading = asyncio.Lock()
        self._retiring: dict[asyncio.Task[None], Serving] = {}
        self._issuers: dict[str, Issuer] = {}
        self.models: dict[str, Model] = {}
        self.draining = False
        self.waits_for_others = settings.worker is not None
        self.in_flight = 0
        if settings.model_name is not None:
            self._add(settings.model_name, settings.model_path)
        else:
            self._discover()
        for model in self.models.values():
            model.wanted = True

    @property
    def ready(self) -> bool:
        """Whether new requests should be sent here: there are models, and all that are wanted are loaded."""
        return self.why_not_ready() is None

    def why_not_ready(self) -> str | None:
        """Return what is missing, for people; None if nothing is."""
        if (why := self.why_none_ready()) is not None:
            return why
        wanted = [model for model in self.models.values() if model.wanted]
        if not wanted:
            return "there is no model"
        waits = next((model for model in wanted if model.current is None), None)
        return None if waits is None else "the model is not loaded yet"

    def why_none_ready(self) -> str | None:
        """Return why no model is ready, whichever is asked for; None if it depends on the model."""
        if self.draining:
            return "shutting down"
        return "workers still load their models" if self.waits_for_others else None

    @property
    def servings(self) -> Iterator[Serving]:
        """All versions of all models that answer requests."""
        return (serving for model in self.models.values() for serving in model.versions.values())

    def find(self, name: str, version: str | None = None) -> Serving:
        """Return what answers for the model, or raise the ProtocolError (404, 503) that says why nothing does."""
        return self.known(name).find(version)

    def known(self, name: str) -> Model:
        """Return the model, loaded or not; raises the 404."""
        return find_model(self.models, name)

    async def load_all(self) -> None:
        """Load every model; raises ModelLoadError or SettingsError at the first that cannot be."""
        if not self.models:
            raise ModelLoadError(f"no model in {self._settings.model_path}: it has no folder")
        async with self._loading:
            # The index may find more meanwhile; those are not wanted.
            for model in [model for model in self.models.values() if model.wanted]:
                await self._load(model)

    async def load(self, name: str) -> None:
        """Load the model anew, or one that has been added to the repository, and exchange it.

        Raises ProtocolError (404 if there is no such model), ModelLoadError or SettingsError, and has changed
        nothing then.
        """
        async with self._loading:
            self._refuse_if_draining()
            added = name not in self.models
            if added:
                self._look_for(name)
            model = self.known(name)
            try:
                await self._load(model)
            except BaseException:
                if added:
                    self._forget(model)
                raise

    async def unload(self, name: str) -> None:
        """Serve the model no more; returns when its last request is answered. Raises ProtocolError (404)."""
        async with self._loading:
            self._refuse_if_draining()
            model = self.known(name)
            retired = model.exchange({})
            model.wanted = False
            model.state, model.reason = "UNLOADING", "the model was unloaded"
            if retired:
                await asyncio.wait([self._retire_later(serving) for serving in retired])
            model.state = "UNAVAILABLE"
            event(logger, "unloaded", model=name)

    def index(self, only_ready: bool = False) -> list[dict[str, str]]:
        """Return the protocol's index of the repository: an entry a version, or one for a model without any."""
        if self._settings.model_name is None:
            with suppress(ModelLoadError):
                self._discover()
        entries = [entry for model in self.models.values() for entry in _entries(model)]
        return [entry for entry in entries if entry["state"] == "READY" or not only_ready]

    def set_cohort(self, cohort: str, now: int) -> None:
        """Count and sign predictions for `cohort` from now on."""
        self._cohort = cohort
        for issuer in self._issuers.values():
            issuer.set_cohort(cohort)
        for model in self.models.values():
            model.tally.start_cohort(cohort, now)

    def set_feedback(self, feedback: Feedback) -> None:
        """Judge predictions by `feedback` from now on."""
        self._judging.configured = feedback
        for model in self.models.values():
            for serving in model.versions.values():
                serving.judge = self._judging.judge(serving.schema)
            if model.current is not None and model.intake is not None:
                model.intake.judge = model.current.judge
                event(logger, "feedback changed", model=model.name, decision_output=model.current.judge.output)

    def settle(self) -> None:
        """Count what other threads have posted."""
        for model in self.models.values():
            model.metrics.settle()

    @property
    def pending(self) -> int:
        """Requests whose run has not ended, of versions that serve and of those that were exchanged."""
        return sum(serving.executor.pending for serving in (*self.servings, *self._retiring.values()))

    def close(self) -> None:
        """Stop all threads as soon as what runs has ended."""
        for task, serving in list(self._retiring.items()):
            task.cancel()
            serving.executor.close()
        for serving in self.servings:
            serving.executor.close()

    def _add(self, name: str, path: Path) -> None:
        revision = self._settings.revision
        self._issuers[name] = Issuer(self._keys, revision, self._cohort, name)
        self.models[name] = Model(name, Metrics(name, revision), Tally(name, revision, self._cohort), path)

    def _forget(self, model: Model) -> None:
        del self.models[model.name], self._issuers[model.name]

    def _discover(self) -> None:
        for name, path in locate_models(self._settings.model_path).items():
            if name not in self.models:
                self._add(name, path)

    def _look_for(self, name: str) -> None:
        root = self._settings.model_path
        if self._settings.model_name is None and is_model_name(name) and (root / name).is_dir():
            self._add(name, root / name)

    def _refuse_if_draining(self) -> None:
        if self.draining:
            raise ProtocolError("the server is shutting down", status=503)

    async def _load(self, model: Model) -> None:
        before = model.state
        if model.current is None:
            model.state, model.reason = "LOADING", ""
        try:
            await self._exchange(model)
        except Exception as error:
            model.metrics.loads["failed"] += 1
            model.state, model.reason = before, f"the last load failed: {error}"
            raise
        model.metrics.loads["ok"] += 1
        model.wanted, model.state, model.reason = True, "READY", ""

    async def _exchange(self, model: Model) -> None:
        settings = self._settings
        files = await asyncio.to_thread(locate_versions, model.path, settings.version_policy)
        loaded: dict[str, Serving] = {}
        try:
            for file in files:
                loaded[file.version] = await self._load_version(model, file)
        except BaseException:
            for serving in loaded.values():
                serving.executor.close()
            raise
        retired = model.exchange(loaded)
        judge = loaded[files[-1].version].judge
        if model.intake is None:
            model.intake = Intake(model.name, self._keys, judge, Ledger(), model.tally)
        model.intake.judge = judge
        for serving in retired:
            self._retire_later(serving)

    async def _load_version(self, model: Model, file: ModelFile) -> Serving:
        serving = await load_version(model.name, file, self._settings.serving, self._judging,
                                     self._issuers[model.name], model.metrics)  # fmt: skip
        before = model.versions.get(file.version)
        if before is not None:
            serving.statistics = before.statistics
        return serving

    def _retire_later(self, serving: Serving) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(self._retire(serving))
        self._retiring[task] = serving
        task.add_done_callback(self._retiring.pop)
        return task

    async def _retire(self, serving: Serving) -> None:
        # Its requests are bounded by their timeout, and a run that nobody waits for is told to stop.
        while serving.in_flight or serving.calls or serving.executor.pending:  # noqa: ASYNC110 - counting must stay cheap
            await asyncio.sleep(RETIRE_POLL_SECONDS)
        serving.executor.close()
        event(logger, "retired", model=serving.name, version=serving.version)


def _entries(model: Model) -> Iterable[dict[str, str]]:
    if not model.versions:
        return [{"name": model.name, "version": "", "state": model.state, "reason": model.reason}]
    return [
        {"name": model.name, "version": version, "state": model.state, "reason": model.reason}
        for version in model.versions
    ]
