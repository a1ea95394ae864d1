"""The command line, which notes the CPU seconds and the peak memory of each phase of a run: `phases.json` in the project."""

import json
import resource
import sys
from pathlib import Path
from typing import NamedTuple

ENDS = {
    "lease.taken": "start",
    "read.ended": "read",
    "run.opened": "build",
    "delivery.ended": "deliver",
    "lease.freed": "commit",
}
"""What a step of `connector._steps` is the end of."""


class Phase(NamedTuple):
    """CPU seconds of all threads; MB resident at most, shared libraries included."""

    seconds: float
    peak: float


def noted(project: Path) -> dict[str, Phase]:
    """The phases of the project's last run, in their order."""
    return {name: Phase(*phase) for name, phase in json.loads((project / "phases.json").read_text()).items()}


def main(arguments: list[str]) -> int:
    """The command line's exit status."""
    from connector import _steps  # noqa: PLC0415 - before what takes `step` from it is imported

    phases: dict[str, Phase] = {}

    def step(name: str) -> None:
        if name in ENDS:
            used = resource.getrusage(resource.RUSAGE_SELF)
            before = sum(phase.seconds for phase in phases.values())
            phases[ENDS[name]] = Phase(used.ru_utime + used.ru_stime - before, _peak())

    _steps.step = step  # type: ignore[assignment] - of any name
    from connector.cli import main as command_line  # noqa: PLC0415

    status = command_line(arguments)
    (Path(arguments[arguments.index("--project") + 1]) / "phases.json").write_text(json.dumps(phases))
    return status


def _peak() -> float:
    """Since the last time, where the kernel can say so: Linux alone."""
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not reset.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
    reset.write_text("5")
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
