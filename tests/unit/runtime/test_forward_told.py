"""How a server is told to forward: on the admin port and by a file, in which order, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.runtime.conftest import Pair, Start, StartProcess
from tests.unit.runtime.forwarding import tell, told, url
from tests.unit.runtime.process import SETOSA, call, iris_request
from tests.unit.runtime.test_overload import wait_until


def test_a_setting_is_shown_and_taken_back(pair: Pair) -> None:
    stable, canary = pair
    assert told(stable) == {"forward": None, "source": None, "generation": None}
    state = tell(stable, to=url(canary), share=0.5, generation=3).json
    assert state["forward"] == {"to": url(canary), "share": 0.5, "by": "random"}
    assert (state["source"], state["generation"]) == ("admin", 3)
    for _ in range(100):
        stable.infer(iris_request(SETOSA))
    state = told(stable)
    assert state["counts"] == {"seen": 100, "forwarded": 50, "fallback": 0, "timeout": 0}
    assert state["fallback_reasons"] == {}
    assert state["target"] == {"addresses": 1, "failing": 0, "connections": 1, "idle": 1}
    assert call(stable.admin_port, "DELETE", "/v2/forward").json == {
        "forward": None, "source": "admin", "generation": 3,
    }  # fmt: skip
    assert stable.infer(iris_request(SETOSA)).headers["penstock-revision"] == "stable"
    assert call(stable.admin_port, "POST", "/v2/forward", {}).status == 405
    assert stable.get("/v2/forward").status == 404, "not on the port for users"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "forward: no valid JSON"),
        (b"[]", "forward: it must be a JSON object"),
        (b'{"to": "http://x", "share": 2}', "forward: 'share' is 2, which is not from 0 to 1"),
        (b'{"to": "https://x", "share": 1}', "forward: 'to': https is not supported"),
        (b'{"to": "http://x", "share": 1, "generation": -1}', "'generation' must be an integer >= 0"),
        (b'{"to": "http://x", "share": 1, "generation": "4"}', "'generation' must be an integer >= 0"),
    ],
)
def test_a_bad_setting_is_refused_and_changes_nothing(pair: Pair, body: bytes, message: str) -> None:
    stable, canary = pair
    tell(stable, to=url(canary), share=1, generation=1)
    before = told(stable)
    reply = call(stable.admin_port, "PUT", "/v2/forward", body)
    assert reply.status == 400
    assert message in reply.json["error"]
    assert told(stable) == before
    assert stable.infer(iris_request(SETOSA)).headers["penstock-revision"] == "canary"


def test_an_old_generation_is_refused(pair: Pair) -> None:
    stable, canary = pair
    tell(stable, to=url(canary), share=0.5, generation=5)
    reply = tell(stable, to=url(canary), share=0.1, generation=4)
    assert (reply.status, reply.json["error"]) == (409, "forward: generation 4 is older than 5, told before")
    assert told(stable)["forward"]["share"] == 0.5
    assert tell(stable, generation=6).json["forward"] is None, "an empty setting takes back, in order"


def write(folder: Path, setting: object) -> None:
    """Exchange the file as a kubelet does, at once."""
    new = folder / "new"
    new.write_bytes(setting if isinstance(setting, bytes) else json.dumps(setting).encode())
    new.rename(folder / "forward.json")


def test_a_mounted_file_is_known_from_the_start_and_watched(start_server: Start, tmp_path: Path) -> None:
    canary = start_server("iris", PENSTOCK_REVISION="canary").ready()
    write(tmp_path, {"to": url(canary), "share": 1})
    stable = start_server("iris", "--config-dir", str(tmp_path), PENSTOCK_REVISION="stable").ready()
    assert stable.infer(iris_request(SETOSA)).headers["penstock-revision"] == "canary"
    assert told(stable)["source"] == "file"

    write(tmp_path, b'{"share": 2}')
    stable.wait_log("the file 'forward.json' is malformed and ignored")
    assert stable.log[-1]["error"] == "'to' must be a URL such as http://iris-canary.my-namespace.svc:80"
    assert told(stable)["forward"]["share"] == 1, "the last good one stays"

    write(tmp_path, {"to": url(canary), "share": 0.5, "generation": 1})
    stable.wait_log("forward changed")
    assert told(stable)["forward"]["share"] == 0.5

    (tmp_path / "forward.json").unlink()
    stable.wait_log("forward changed")
    assert told(stable) == {"forward": None, "source": None, "generation": 1}


def test_a_late_file_does_not_undo_what_was_told_since(start_server: Start, tmp_path: Path) -> None:
    canary = start_server("iris", PENSTOCK_REVISION="canary").ready()
    stable = start_server("iris", "--config-dir", str(tmp_path), PENSTOCK_REVISION="stable").ready()
    tell(stable, to=url(canary), share=0.25, generation=8)
    write(tmp_path, {"to": url(canary), "share": 0.05, "generation": 7})
    assert stable.wait_log("the file 'forward.json' is old and ignored")["newest"] == 8
    assert told(stable)["forward"]["share"] == 0.25

    write(tmp_path, {"to": url(canary), "share": 0.25, "generation": 8})
    wait_until(lambda: told(stable)["source"] == "file")
    call(stable.admin_port, "DELETE", "/v2/forward")
    write(tmp_path, {"to": url(canary), "share": 0.3, "generation": 8})
    stable.wait_log("the file 'forward.json' is old and ignored")
    assert told(stable)["forward"] is None, "what was taken back stays so until there is something newer"

    write(tmp_path, {"to": url(canary), "share": 0.4, "generation": 9})
    wait_until(lambda: (told(stable)["forward"] or {}).get("share") == 0.4)


def test_a_file_that_vanishes_takes_back_only_what_it_told(start_server: Start, tmp_path: Path) -> None:
    canary = start_server("iris", PENSTOCK_REVISION="canary").ready()
    write(tmp_path, {"to": url(canary), "share": 0.1})
    stable = start_server("iris", "--config-dir", str(tmp_path)).ready()
    tell(stable, to=url(canary), share=0.2)
    (tmp_path / "forward.json").unlink()
    # Two looks at the missing file, and one at another file that shows they have been.
    (tmp_path / "cohort").write_text("one")
    stable.wait_log("cohort changed")
    (tmp_path / "cohort").write_text("two")
    stable.wait_log("cohort changed")
    (tmp_path / "cohort").write_text("three")
    stable.wait_log("cohort changed")
    assert told(stable)["forward"]["share"] == 0.2


def test_a_restarted_server_goes_on_by_its_file(
    start_process: StartProcess, start_server: Start, tmp_path: Path
) -> None:
    canary = start_server("iris", PENSTOCK_REVISION="canary").ready()
    write(tmp_path, {"to": url(canary), "share": 1, "generation": 2})
    arguments = ("iris", "--config-dir", str(tmp_path), "--drain-seconds", "0")
    first = start_process(*arguments).ready()
    assert first.infer(iris_request(SETOSA)).headers["penstock-revision"] == "canary"
    first.terminate()
    assert first.wait_exit() == 0
    second = start_process(*arguments).ready()
    assert second.infer(iris_request(SETOSA)).headers["penstock-revision"] == "canary"
