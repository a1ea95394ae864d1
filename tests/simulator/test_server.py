"""The HTTP door: ports, shutdown, signals."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from connector.errors import UsageError
from connector.simulator import Simulator, serve
from tests.simulator.conftest import HEADERS, KEY, PROJECT, operations

SCRIPT = """
import sys
from pathlib import Path
from connector.simulator import Simulator, run_forever
with Simulator({"project_test": "rest_test"}, folder=Path(sys.argv[1])) as simulator:
    run_forever(simulator, 0, on_ready=lambda served: print(served.base_url, flush=True))
"""


def _post(base_url: str, count: int = 1, timeout: float = 5) -> httpx.Response:
    with httpx.Client(trust_env=False, headers=HEADERS, timeout=timeout) as client:
        return client.post(f"{base_url}/profiles/update", json=operations(count))


def test_base_url_is_ready_at_once() -> None:
    """A served simulator takes calls as soon as its address is known, and none afterwards."""
    simulator = Simulator({PROJECT: KEY})
    with serve(simulator) as served:
        assert served.base_url == f"http://127.0.0.1:{served.port}/2.11"
        assert _post(served.base_url).status_code == 202
    with pytest.raises(httpx.ConnectError):
        _post(served.base_url)
    assert len(simulator.profiles()) == 1


def test_shutdown_does_not_wait_for_delayed_answers() -> None:
    """Ending the server takes less than a second, and a caller who still waits gets no success."""
    simulator = Simulator({PROJECT: KEY})
    ends: list[str] = []

    def call(base_url: str) -> None:
        try:
            ends.append(str(_post(base_url, timeout=30).status_code))
        except httpx.TransportError:
            ends.append("broken")

    with serve(simulator) as served:
        simulator.inject({"delay": 30})
        caller = threading.Thread(target=call, args=(served.base_url,))
        caller.start()
        deadline = time.monotonic() + 5
        while not simulator.profiles() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(simulator.profiles()) == 1
        start = time.monotonic()
    assert time.monotonic() - start < 1
    caller.join(5)
    assert ends in (["broken"], ["500"])


def test_a_taken_port_is_a_sentence() -> None:
    """A port in use is refused with the remedy."""
    with (
        serve(Simulator({PROJECT: KEY})) as served,
        pytest.raises(UsageError, match=rf"port {served.port}.*another port"),
        serve(Simulator({PROJECT: KEY}), port=served.port),
    ):
        pass


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_run_forever_ends_cleanly(tmp_path: Path, end: signal.Signals) -> None:
    """SIGINT and SIGTERM end it with status 0 and no output; after any end the profiles are there."""
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stderr
        assert _post(process.stdout.readline().strip(), 3).status_code == 202
        os.kill(process.pid, end)
        assert process.wait(5) == (-9 if end is signal.SIGKILL else 0)
        assert process.stderr.read() == ""
    with Simulator({PROJECT: KEY}, folder=tmp_path) as simulator:
        assert len(simulator.profiles()) == 3
