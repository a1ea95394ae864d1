"""`validate` and `check`: is this project right, before anything is sent."""

from typing import Any

from rich.console import Console
from rich.text import Text

from connector.cli._answer import Answer, Call, located, printable
from connector.cli._check import Step, checked
from connector.cli._folder import loaded
from connector.cli._grants import granted
from connector.config import ExportSync, Project, Sync
from connector.warehouses._grants import comment


def validate(call: Call) -> Answer:
    """Read the YAML; an error lists every mistake of every file."""
    project = loaded(call)
    return Answer({"ok": True, "errors": []}, lambda out: _show_project(out, project))


def check(call: Call, sync: str | None, *, grants: bool) -> Answer:
    """Try everything that a run needs, of one sync or of all; or name the rights of it, and try nothing."""
    project = loaded(call)
    syncs = [project.sync(sync)] if sync else list(project.syncs.values())
    if grants:
        found = granted(project, syncs)
        return Answer({"ok": True, "errors": [], "grants": found}, lambda out: _show_grants(out, found))
    steps = checked(project, syncs)
    failed = [step for step in steps if step.problem]
    data: dict[str, Any] = {
        "ok": not failed,
        "errors": [located(step.problem) for step in failed if step.problem],
        "steps": [{"name": step.name, "passed": step.problem is None, "message": step.message} for step in steps],
    }
    # A missing variable or file (2) is what to mend first.
    return Answer(data, lambda out: _show_steps(out, steps), max((step.exit_status for step in failed), default=0))


def _show_project(out: Console, project: Project) -> None:
    out.print(f"the YAML in {project.root} is right")
    for sync in project.syncs.values():
        out.print(f"  {sync.name}: {_described(sync)} in {sync.warehouse}")


def _described(sync: Sync) -> str:
    if isinstance(sync, ExportSync):
        return f"export of {sync.export} into {sync.table}"
    return f"{sync.kind} from {sync.source.table or sync.source.query_file or 'a query'}"


def _show_grants(out: Console, grants: dict[str, list[str]]) -> None:
    for name, lines in grants.items():
        for line in (comment(f"warehouse '{name}'"), *lines):
            out.print(printable(line), soft_wrap=True)  # a statement that is cut in two may be none


def _show_steps(out: Console, steps: list[Step]) -> None:
    for step in steps:
        mark = Text("failed", style="red") if step.problem else Text("passed", style="green")
        out.print(Text.assemble(mark, f"  {step.name}: {printable(step.message)}"))
    failed = sum(step.problem is not None for step in steps)
    out.print(f"{failed} of {len(steps)} checks failed" if failed else f"all {len(steps)} checks passed")
