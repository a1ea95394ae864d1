"""Runs a command for as long as somebody holds a lock on a file: `python keeper.py USERS STATE COMMAND…`."""

import fcntl
import signal
import subprocess
import sys
import threading
from pathlib import Path


def stop(child: subprocess.Popen[bytes], users: str, state: str) -> None:
    """Ends the command when nobody uses it any more; whoever comes meanwhile waits until it is gone."""
    with Path(users).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        Path(state).unlink(missing_ok=True)
        child.terminate()
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


if __name__ == "__main__":
    users, state, *command = sys.argv[1:]
    running = subprocess.Popen(command)
    signal.signal(signal.SIGTERM, lambda *_: running.terminate())
    threading.Thread(target=stop, args=(running, users, state)).start()
    sys.exit(running.wait())
