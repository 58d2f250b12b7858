"""Given: how the story begins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from e2e.tests.expectation import Expectation
from e2e.tests.load import Load
from e2e.tests.manifests import changed, quick_spec
from e2e.tests.story import Story
from e2e.tests.then import Then

START_SECONDS = 120


class Given:
    """Brings the stage into the state that a story starts from."""

    def __init__(self, story: Story) -> None:
        """For one story."""
        self._story = story

    def model(
        self, model: str = "good-v1", *, source: Mapping[str, Any] | None = None, **changes: Any
    ) -> DeployedModel:
        """A ModelDeployment of this model, with changes of spec.model (`source`) and of other fields of its spec."""
        self._story.provide(model)
        spec = changed(quick_spec(model, self._story.traffic()), {**changes, "model": source or {}})
        self._story.apply(spec)
        self._story.tell(f"given  {model} is applied")
        return DeployedModel(self._story, model)

    def users(self, rate: float = 100, *, labels: bool = True) -> Load:
        """Users who send requests all the time, and their labels; returns once they are answered."""
        load = self._story.start_load(rate, labels=labels)
        before = load.tally.ok

        def problem() -> str:
            if load.crash:
                return f"the load generator ended: {load.crash!r}"
            return "" if load.tally.ok >= before + 10 else f"{load.tally}; {load.tally.failures[-1:]}"

        sentence = f"given  users send {rate:g} requests/s and are answered"
        Expectation(sentence, problem, tell=self._story.tell).within(30)
        load.forget_failures()
        return load


class DeployedModel:
    """A model that was applied."""

    def __init__(self, story: Story, model: str) -> None:
        """Nothing is awaited yet."""
        self._story, self._model = story, model

    def is_healthy(self) -> None:
        """Wait until it serves."""
        Then(self._story).served_by(self._model).within(START_SECONDS)
