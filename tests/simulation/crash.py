"""A process that dies: at any step of a run that outlives it, as after kill -9 or a power cut."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa


class Crash(BaseException):
    """The process is gone; what is still executed has no effect."""


Death = int | tuple[str, int]
"""At which step a run dies: the n-th of all from 1, or the n-th of that name."""

Seen = Callable[[str, Path | None], None]
"""Told of a step that is about to be taken, and of the file whose content is not yet safe."""


class Steps:
    """The steps of a run: every commit, every file made, synced or removed, every request before and after its effect.

    A transaction's begin is none of its own: a death between begin and commit leaves what one at the commit leaves.

    At the step where the run is to die the state folder is copied, and that copy is what the next run finds: whatever
    the dying run's cleaning up writes is lost, as it would not have been executed.
    """

    def __init__(self, state: Path) -> None:
        self._state = state
        self._saved = state.with_name(state.name + ".saved")
        self._at: Death | None = None
        self._seen: Seen | None = None
        self._running = False
        self.dead = False
        self.names: list[str] = []
        """What each step of the current run was."""
        self.commits = 0

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Transactions are steps, too; until the context ends, as to listen anew for each run would cost more than it."""
        sa.event.listen(sa.Engine, "commit", self._on_commit)
        try:
            yield
        finally:
            sa.event.remove(sa.Engine, "commit", self._on_commit)

    @contextmanager
    def counted(self, at: Death | None, seen: Seen | None = None) -> Iterator[None]:
        """A run's steps are counted, and shown to `seen` before they are taken; at step `at` it dies.

        Raises:
            Crash: It died; the state is as it was at that moment.
        """
        self.names, self._at, self._seen, self.dead = [], at, seen, False
        with self._hooks():
            self._running = True
            try:
                yield
            finally:
                self._running = False
                if self.dead:
                    shutil.rmtree(self._state, ignore_errors=True)
                    if self._saved.exists():
                        self._saved.rename(self._state)
        if self.dead:  # somebody swallowed it
            raise Crash(self.names[-1])

    def step(self, name: str, torn: Path | None = None) -> None:
        """One step is about to be taken.

        Args:
            name: What it is.
            torn: A file whose content is not yet safe.
        """
        if not self._running:
            return
        if self.dead:
            raise Crash(name)
        self.names.append(name)
        if self._seen:
            self._running = False
            self._seen(name, torn)
            self._running = True
        if self._at in (len(self.names), (name, self.names.count(name))):
            self._die(torn)
            raise Crash(name)

    def _die(self, torn: Path | None) -> None:
        self._running = False
        if self._state.exists():
            shutil.copytree(self._state, self._saved)
        if torn and self._state in torn.parents:  # a power cut: half of what was not synced is there
            os.truncate(self._saved / torn.relative_to(self._state), torn.stat().st_size // 2)
        self._running = self.dead = True

    @contextmanager
    def _hooks(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            for name in ("unlink", "rmdir", "rename", "replace", "utime", "fdopen"):
                patch.setattr(os, name, self._before(name, getattr(os, name)))
            patch.setattr(os, "open", self._opening(os.open))
            patch.setattr(os, "fsync", self._syncing(os.fsync))
            yield

    def _on_commit(self, connection: sa.Connection) -> None:
        if not connection.get_execution_options().get("reads"):
            self.step("commit")
            self.commits += 1

    def _is_ours(self, path: Any, folder: int | None) -> bool:
        """Whether it is about the state: a finalizer of somebody else's may run at any moment."""
        if isinstance(path, int):
            path = Path(f"/proc/self/fd/{path}").readlink()
        elif folder is not None:
            path = Path(f"/proc/self/fd/{folder}").readlink() / path
        return Path(path).is_relative_to(self._state)

    def _before(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def hooked(*arguments: Any, **options: Any) -> Any:
            if self._is_ours(arguments[0], options.get("dir_fd")):
                self.step(name)
            return call(*arguments, **options)

        return hooked

    def _opening(self, call: Callable[..., int]) -> Callable[..., int]:
        def hooked(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
            if flags & os.O_CREAT and not Path(path).exists():
                self.step("create")
            return call(path, flags, *arguments, **options)

        return hooked

    def _syncing(self, call: Callable[[int], None]) -> Callable[[int], None]:
        def hooked(handle: int) -> None:
            link = Path(f"/proc/self/fd/{handle}")
            path = link.readlink() if link.exists() else None
            self.step("fsync", path if path and path.is_file() else None)
            call(handle)

        return hooked
