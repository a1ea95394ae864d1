"""The command line: `connector [--project DIR] COMMAND`. What is imported here must load in a blink."""

import gc
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from types import TracebackType

import click

from connector.cli._answer import INTERRUPTED, Call, refuse
from connector.cli._commands import commands
from connector.errors import ConnectorError, UsageError

_ALLOCATORS = {
    "_RJEM_MALLOC_CONF": "narenas:2,dirty_decay_ms:100,muzzy_decay_ms:0",
    "ARROW_DEFAULT_MEMORY_POOL": "system",
}
"""Polars and Arrow, which look here when they are loaded, give freed memory back to the system within moments.

By default they keep it for the next phase of a run, each its own: a sixth of the peak.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 green, 1 failed, 2 usage or configuration, 3 incomplete, 4 guarded, 5 busy.

    130 after Ctrl-C, 143 after SIGTERM.

    Args:
        arguments: Those after the command's name; by default the process's.
    """
    # Imports make objects that live as long as the process: looking through them again and again costs a quarter of
    # the start, and a columnar run makes few others.
    gc.set_threshold(100_000)
    for name, how in _ALLOCATORS.items():
        os.environ.setdefault(name, how)
    sys.excepthook = _told
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    call = Call(json="--json" in arguments)
    try:
        return int(commands(arguments or ["--help"], prog_name="connector", standalone_mode=False, obj=call) or 0)
    except click.ClickException as error:
        return refuse(call, _usage(error, call))
    except ConnectorError as error:
        return refuse(call, error)
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _told(_kind: type[BaseException], error: BaseException, _trace: TracebackType | None) -> None:
    """Print where a fault of ours happened; not its text, which may quote a row."""
    sys.stderr.write("".join(_places(error)))
    sys.stderr.write(
        "This is a fault of the connector's own. Nothing is lost: run again to go on. Please report the lines above; "
        "they hold no value of a row.\n"
    )


def _places(error: BaseException) -> Iterator[str]:
    """Where an error came about and what kind it is, after those that led to it."""
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    for each in (before, *getattr(error, "exceptions", ())):
        yield from _places(each) if each else ()
    yield from traceback.format_tb(error.__traceback__)
    yield f"{type(error).__name__}\n"


def _usage(error: click.ClickException, call: Call) -> UsageError:
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "connector"
    call.command = call.command or (context.info_name or "" if context else "")
    remedy = f"see: {path} --help"
    if isinstance(error, click.NoSuchOption) and error.option_name == "--project":
        remedy = f"write it before the command: connector --project DIR {call.command}"
    return UsageError(error.format_message().rstrip("."), remedy=remedy)


__all__ = ["main"]
