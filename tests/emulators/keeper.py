"""Runs an emulator until the last process that uses it has ended.

    python keeper.py FOLDER PORTS COMMAND

FOLDER/users is locked, shared, by each user; FOLDER/ports holds the ports once the emulator listens on them.
"""

import fcntl
import shutil
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path

_START = 60
"""Seconds for an emulator to listen, on a busy machine."""

_GRACE = 10
"""Seconds for it to stop by itself."""


def main(folder: Path, count: int, command: list[str]) -> None:
    """Start the emulator, and stop it when nobody holds the users' lock."""
    ports, data = _free_ports(count), folder / "data"
    data.mkdir(exist_ok=True)
    started = [part.replace("{data}", str(data)) for part in command]
    for number, port in enumerate(ports):
        started = [part.replace(f"{{{number}}}", str(port)) for part in started]
    with ExitStack() as stack:
        users = stack.enter_context((folder / "users").open())
        emulator = stack.enter_context(subprocess.Popen(started))
        stack.callback(_stop, emulator)
        if not all(_listens(emulator, port) for port in ports):
            return
        (folder / "ports.new").write_text(" ".join(map(str, ports)))
        (folder / "ports.new").rename(folder / "ports")
        fcntl.flock(users, fcntl.LOCK_EX)
        shutil.rmtree(folder, ignore_errors=True)  # while it is locked: whoever joins now sees that it is gone
        with suppress(OSError):
            folder.parent.rmdir()


def _stop(emulator: "subprocess.Popen[bytes]") -> None:
    emulator.terminate()
    with suppress(subprocess.TimeoutExpired):
        emulator.wait(_GRACE)
    emulator.kill()


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _listens(emulator: "subprocess.Popen[bytes]", port: int) -> bool:
    deadline = time.monotonic() + _START
    while emulator.poll() is None and time.monotonic() < deadline:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
            return True
        time.sleep(0.05)
    return False


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
