"""Every error raised on purpose, classed by what the caller should do.

ConnectorError
├─ UsageError         the command or its options are wrong    → fix the call             (exit 2)
├─ ConfigError        the YAML or the environment is wrong    → fix the file             (exit 2)
├─ WarehouseError     the warehouse, its table or columns     → fix there, run again     (exit 1)
├─ StateError         the state folder cannot be used         → follow the remedy        (exit 1)
├─ ApiError           Batch refused the credentials or route  → fix them, run again      (exit 1)
├─ ExportError        an export failed, or is not whole       → run again, it is asked anew (exit 1)
├─ PendingError       an export is not made yet               → run again, it goes on    (exit 3)
├─ GuardError         a mass change stopped before sending    → look at the plan         (exit 4)
├─ BusyError          another run of this sync holds it       → wait                     (exit 5)
└─ CancelledRunError  the run was told to stop                → run again, it resumes    (exit 143)

Messages hold what, where, got, allowed; never a secret nor the value of an attribute.
"""

from typing import NamedTuple


class ConnectorError(Exception):
    """Base of all: one sentence for a person, a stable code for a script, and what to do next."""

    code = "error"
    exit_status = 1

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}; {self.remedy}" if self.remedy else self.message


class UsageError(ConnectorError):
    """The command, its options or a name given to it are wrong."""

    code = "usage"
    exit_status = 2


class Problem(NamedTuple):
    """One mistake in a configuration file: where it is (1-based) and what to do about it."""

    file: str
    line: int
    column: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.message}"


class ConfigError(ConnectorError):
    """The YAML or the environment is wrong; `problems` names every mistake of every file."""

    code = "configuration"
    exit_status = 2

    def __init__(self, message: str, *, remedy: str = "", problems: tuple[Problem, ...] = ()) -> None:
        super().__init__(message, remedy=remedy)
        self.problems = problems


class WarehouseError(ConnectorError):
    """The warehouse cannot be opened or read, or lacks a table or column."""

    code = "warehouse"


class StateError(ConnectorError):
    """The state folder is damaged, locked, or belongs to another project."""

    code = "state"


class ApiError(ConnectorError):
    """Batch refuses every request: credentials, project, route or a redirect. Nothing more is sent."""

    code = "api"


class ExportError(ConnectorError):
    """Batch's export failed, or what it brought is not whole: nothing of it is loaded."""

    code = "export"


class PendingError(ConnectorError):
    """An export is not made yet, or Batch does not answer: the next run goes on with it."""

    code = "pending"
    exit_status = 3


class GuardError(ConnectorError):
    """A guard stopped the run before its first request."""

    code = "guarded"
    exit_status = 4


class BusyError(ConnectorError):
    """Another run of the same sync is under way."""

    code = "busy"
    exit_status = 5


class CancelledRunError(ConnectorError):
    """The run was told to stop; what was acknowledged is kept and the next run resumes."""

    code = "cancelled"
    exit_status = 143
