"""The door for other processes: the simulator on a loopback port."""

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import uvicorn

from connector.errors import UsageError
from connector.simulator.limits import VERSION
from connector.simulator.simulator import Simulator

_BACKLOG = 128


class Served(NamedTuple):
    """Where a served simulator listens."""

    host: str
    port: int

    @property
    def root(self) -> str:
        """The address of the control routes: root + "/simulator/…"."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def base_url(self) -> str:
        """What a client of the Profile API is configured with."""
        return f"{self.root}/{VERSION}"


@contextmanager
def serve(simulator: Simulator, host: str = "127.0.0.1", port: int = 0) -> Iterator[Served]:
    """Answer HTTP from a thread until the block ends; who still waits then gets a 500 or a broken connection.

    Args:
        simulator: Whose state is served; its methods stay usable meanwhile.
        host: An address of this machine.
        port: 0 takes a free one.

    Raises:
        UsageError: The address cannot be listened on.
    """
    listener = _listen(host, port)
    config = uvicorn.Config(
        simulator.app,
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        log_level="critical",
        timeout_graceful_shutdown=0,
    )
    server = uvicorn.Server(config)
    # Connections wait in the listener's queue until the thread is ready, so nobody has to wait for it here.
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="simulator", daemon=True)
    thread.start()
    try:
        yield Served(host, listener.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def run_forever(
    simulator: Simulator,
    port: int,
    *,
    host: str = "127.0.0.1",
    on_ready: Callable[[Served], None] = lambda served: None,  # noqa: ARG005
) -> None:
    """Answer HTTP until SIGINT or SIGTERM; call it from the main thread.

    Args:
        simulator: Whose state is served.
        port: 0 takes a free one.
        host: An address of this machine.
        on_ready: Told the address once it is listened on.

    Raises:
        UsageError: The address cannot be listened on.
    """
    ends = {signal.SIGINT, signal.SIGTERM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    try:
        with serve(simulator, host, port) as served:
            on_ready(served)
            signal.sigwait(ends)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except (OSError, OverflowError) as error:
        why = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        raise UsageError(
            f"the simulator cannot listen on {host} port {port}: {why}",
            remedy="give another port, or 0 for a free one",
        ) from error
