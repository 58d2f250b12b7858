"""The mounted folder through which the operator speaks to a running pod."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path

import orjson

from penstock_runtime.log import event
from penstock_runtime.server.feedback.tally import NO_COHORT
from penstock_runtime.server.settings import Feedback, SettingsError, read_feedback

logger = logging.getLogger(__name__)


class ConfigDir:
    """Files that may change at any time (the kubelet swaps them); absent or unreadable ones are no error.

    `cohort` holds the rollout's id, `feedback` spec.feedback as JSON; `forward.json` is read by others. None is
    part of a revision, so none may restart a pod.
    """

    def __init__(self, folder: Path, default: Feedback) -> None:
        """Read both; `default` is the feedback configuration where no file tells one."""
        self._folder = folder
        self._default = default
        self._feedback_text: str | None = None
        self.cohort = NO_COHORT
        self.feedback = default
        self.refresh()

    def refresh(self) -> bool:
        """Read both again and return whether anything changed. A malformed `feedback` changes nothing."""
        before = (self.cohort, self.feedback)
        self.cohort = (self._read("cohort") or "")[:128] or NO_COHORT
        text = self._read("feedback")
        if text != self._feedback_text:
            self._feedback_text = text
            self._parse(text)
        return before != (self.cohort, self.feedback)

    def document(self, name: str) -> bytes | None:
        """Return the content of the file `name`, None if there is none that can be read."""
        with suppress(OSError):
            return (self._folder / name).read_bytes()
        return None

    def _parse(self, text: str | None) -> None:
        if not text or text == "{}":
            self.feedback = self._default
            return
        try:
            spec = orjson.loads(text)
            if not isinstance(spec, dict):
                raise SettingsError("it must be a JSON object")
            self.feedback = read_feedback(spec)
        except (orjson.JSONDecodeError, SettingsError) as error:
            event(logger, "the file 'feedback' is malformed and ignored", level=logging.ERROR, error=str(error))

    def _read(self, name: str) -> str | None:
        with suppress(OSError, UnicodeDecodeError):
            return (self._folder / name).read_text().strip()
        return None
