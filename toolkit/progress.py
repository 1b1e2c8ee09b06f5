"""Says on standard error what long work is at: a bar on a terminal, else a line for each step."""

from __future__ import annotations

from types import TracebackType
from typing import Any, TextIO

from ..export import Step


class Progress:
    """A bar on a terminal, lines elsewhere; nothing where it is not to be shown."""

    def __init__(self, stream: TextIO, shown: bool) -> None:
        self._stream, self._shown = stream, shown
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Progress:
        if self._shown and self._stream.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
            from rich.progress import Progress as RichProgress

            columns = (MofNCompleteColumn(), BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
            # Standard error is swallowed meanwhile (`quiet`), so it is left alone here.
            self._bar = RichProgress(
                *columns,
                console=Console(file=self._stream),
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._task = self._bar.add_task("", total=None)
            self._bar.start()
        return self

    def __call__(self, step: Step) -> None:
        """Show what is begun."""
        if self._bar is not None:
            self._bar.update(self._task, completed=step.done, total=step.of, description=step.what)
        elif self._shown:
            print(f"{step.done + 1}/{step.of} {step.what}", file=self._stream, flush=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
