"""Where the demo is shown: a live display on a terminal, plain lines everywhere else.

A stage only shows. What is true is for the story to find out.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from barnabas.cli.printing import as_text

_REFRESH_PER_SECOND = 10
_BAR_WIDTH = 40
_INDENT = (0, 0, 0, 4)


class Stage(Protocol):
    """What the story tells its audience."""

    last: str
    """What was shown last."""

    def open(self, titles: Sequence[str]) -> None:
        """All acts that there will be."""

    def begin(self) -> None:
        """The next act begins, and the one before it is over."""

    def line(self, text: str) -> None:
        """Something has happened, for good."""

    def now(self, text: str) -> None:
        """What is going on at the moment; replaced by the next one."""

    def close(self) -> None:
        """The last act is over."""


@contextmanager
def open_stage(*, plain: bool) -> Iterator[Stage]:
    """A live stage where standard output is a terminal and nobody asked for plain lines."""
    console = Console(highlight=False)
    if plain or not console.is_terminal or console.is_dumb_terminal:
        yield PlainStage()
        return
    stage = LiveStage()
    with Live(console=console, refresh_per_second=_REFRESH_PER_SECOND, get_renderable=stage.render):
        try:
            yield stage
        except BaseException:
            # The last picture stays on the screen: it must not look as if it still ran.
            stage.is_broken = True
            raise


@dataclass(slots=True)
class PlainStage:
    """One line per fact, with the seconds since the beginning."""

    last: str = "the beginning"
    _titles: Sequence[str] = ()
    _act: int = 0
    _began: float = field(default_factory=time.monotonic)

    def open(self, titles: Sequence[str]) -> None:
        """Remember the titles; each is printed when its act begins."""
        self._titles = titles

    def begin(self) -> None:
        """Print the next act's title."""
        self._act += 1
        self.last = self._titles[self._act - 1]
        typer.echo(f"\n{self._act}. {self.last}")

    def line(self, text: str) -> None:
        """Print it."""
        self.last = as_text(text)
        typer.echo(f"  {time.monotonic() - self._began:6.2f} s  {self.last}")

    def now(self, text: str) -> None:
        """Not for plain lines: what lasts is printed when it has happened."""

    def close(self) -> None:
        """Nothing is left to do."""


@dataclass(slots=True)
class _Act:
    title: str
    lines: list[str] = field(default_factory=list)
    is_over: bool = False


@dataclass(slots=True)
class LiveStage:
    """All acts at once: those that are over, the one that runs with what it waits for, those to come."""

    last: str = "the beginning"
    is_broken: bool = False
    """Whether the current act ended with an error."""
    _acts: list[_Act] = field(default_factory=list)
    _current: int = -1
    _now: str = ""
    _spinner: Spinner = field(default_factory=lambda: Spinner("dots", style="cyan"))
    _began: float = field(default_factory=time.monotonic)
    _took: float | None = None

    def open(self, titles: Sequence[str]) -> None:
        """Show what will come."""
        self._acts = [_Act(title) for title in titles]

    def begin(self) -> None:
        """Tick the act before off, and show the next one as running."""
        self._end_act()
        self._current += 1
        self.last, self._now = self._acts[self._current].title, ""

    def line(self, text: str) -> None:
        """Keep it on the screen."""
        self.last, self._now = as_text(text), ""
        self._acts[self._current].lines.append(self.last)

    def now(self, text: str) -> None:
        """Show it beside the spinner."""
        self._now = as_text(text)

    def close(self) -> None:
        """Tick the last act off."""
        self._end_act()
        self._current += 1
        self._took = time.monotonic() - self._began

    def render(self) -> RenderableType:
        """What the terminal shows now; called by the display's own thread."""
        if not self._acts:
            return self._spinner
        shown: list[RenderableType] = []
        for number, act in enumerate(self._acts):
            shown.append(self._title(act, is_current=number == self._current))
            shown += [Padding(Text(line), _INDENT) for line in list(act.lines)]
            if number == self._current and not self.is_broken:
                self._spinner.update(text=Text(self._now, style="dim"))
                shown.append(Padding(self._spinner, _INDENT))
        over = sum(act.is_over for act in self._acts)
        bar = Table.grid(padding=(0, 2, 0, 0))
        seconds = time.monotonic() - self._began if self._took is None else self._took
        bar.add_row(
            ProgressBar(total=len(self._acts), completed=over, width=_BAR_WIDTH),
            Text(f"{over} of {len(self._acts)}, {seconds:.1f} s"),
        )
        return Group(*shown, Text(), bar)

    def _title(self, act: _Act, *, is_current: bool) -> Text:
        if act.is_over:
            return Text(f"✓ {act.title}", style="bold green")
        if not is_current:
            return Text(f"○ {act.title}", style="dim")
        return Text(f"✗ {act.title}", style="bold red") if self.is_broken else Text(f"▶ {act.title}", style="bold cyan")

    def _end_act(self) -> None:
        if self._current >= 0:
            self._acts[self._current].is_over = True
