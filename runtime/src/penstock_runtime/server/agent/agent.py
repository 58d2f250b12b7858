"""The model behind an agent: what is counted of it, and how its predictions are signed."""

from __future__ import annotations

import logging
import time

from penstock_runtime.log import event
from penstock_runtime.server.agent.paths import Inference
from penstock_runtime.server.agent.reading import Reader, Reading
from penstock_runtime.server.agent.settings import AgentSettings
from penstock_runtime.server.feedback.ids import Issuer
from penstock_runtime.server.feedback.intake import Intake
from penstock_runtime.server.feedback.keys import Keys
from penstock_runtime.server.feedback.ledger import Ledger
from penstock_runtime.server.feedback.tally import Tally
from penstock_runtime.server.forward.http_client import Response
from penstock_runtime.server.http import Header
from penstock_runtime.server.measured import Measured
from penstock_runtime.server.metrics import Metrics
from penstock_runtime.server.settings import Feedback

logger = logging.getLogger(__name__)


class Agent:
    """One model, served by another process."""

    def __init__(self, settings: AgentSettings, keys: Keys, feedback: Feedback, cohort: str) -> None:
        """Start all counts at 0."""
        name, revision = settings.model_name, settings.revision
        tally = Tally(name, revision, cohort)
        self.reader = Reader(feedback)
        self._intake = Intake(name, keys, self.reader.labels_only, Ledger(), tally)
        self.model = Measured(name, Metrics(name, revision), tally, intake=self._intake)
        self.models = {name: self.model}
        self._issuer = Issuer(keys, revision, cohort, name)
        self.revision_header: Header = (b"penstock-revision", revision.encode())
        self.in_flight = 0
        self.draining = False

    def set_cohort(self, cohort: str, now: int) -> None:
        """Count and sign predictions for `cohort` from now on."""
        self._issuer.set_cohort(cohort)
        self.model.tally.start_cohort(cohort, now)

    def set_feedback(self, feedback: Feedback) -> None:
        """Judge predictions by `feedback` from now on."""
        self.reader.set_feedback(feedback)
        self._intake.judge = self.reader.labels_only
        event(logger, "feedback changed", model=self.model.name, decision_output=feedback.output)

    async def sign(self, inference: Inference, response: Response) -> bytes:
        """Return the id of a good answer, and count what it predicts."""
        return self._issue(await self.reader.read(inference, response.body, dict(response.headers)))

    def sign_message(self, inference: Inference, payload: bytes) -> bytes:
        """The same of an answer over gRPC."""
        return self._issue(self.reader.read_message(inference, payload))

    def _issue(self, reading: Reading) -> bytes:
        self.model.metrics.count_predictions(reading.predictions)
        return self._issuer.issue(time.time(), reading.rows, reading.predictions)
