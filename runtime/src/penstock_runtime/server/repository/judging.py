"""How predictions are judged at the moment: by the mounted file if there is one, else by the environment."""

from __future__ import annotations

import logging
from dataclasses import replace

from penstock_runtime.log import event
from penstock_runtime.protocol.schema import ModelSchema
from penstock_runtime.server.feedback.judge import Judge
from penstock_runtime.server.settings import Feedback, SettingsError

logger = logging.getLogger(__name__)


class Judging:
    """Makes judges by what is configured, which may change while models are served."""

    def __init__(self, default: Feedback, configured: Feedback) -> None:
        """`default`: what the environment says; `configured`: what holds now."""
        self._default = default
        self.configured = configured

    def judge(self, schema: ModelSchema) -> Judge:
        """Return the judge as configured; one that decides nothing where the mounted file names no output.

        That file is no part of the revision, so a mistake in it must not end a pod that serves. Raises
        SettingsError if it is the environment that names no output.
        """
        try:
            return Judge(schema, self.configured)
        except SettingsError as error:
            if self.configured is self._default:
                raise
            event(logger, "labels cannot be compared", level=logging.ERROR, error=str(error))
            return Judge(ModelSchema((), ()), replace(self.configured, output=None))
