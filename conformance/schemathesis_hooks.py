"""What the tool that reads the OpenAPI documents cannot know of them."""

from __future__ import annotations

from typing import Any

import schemathesis


@schemathesis.hook  # type: ignore[untyped-decorator, unused-ignore]
def filter_failure(context: Any, failure: Any, case: Any, response: Any) -> bool:
    """Return whether a failure is one: with a header of 0 any body of the right length is a tensor, even JSON."""
    raw = response.request.headers.get("Inference-Header-Content-Length") in ("0", b"0")
    return not (raw and type(failure).__name__ == "AcceptedNegativeData")
