"""On a terminal a line that moves; elsewhere a line an evaluation. Both on stderr: stdout is for results."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from cutaway.training.loop import Step
from cutaway.training.watch.watch import Speed, Start, Watch, fastest, work


class Live(Watch):
    """Loss, tokens a second, how much of the machine that is, and the time that remains."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False)
        self.loss = 0.0
        self.per_second = 0.0
        self.speed = Speed()
        self.bar: Progress | None = None  # of the data that are read

    def reading(self, name: str, tokens: int, share: float | None) -> None:
        if self.bar is None:
            columns = [BarColumn(bar_width=24), TextColumn("{task.description}"), TimeElapsedColumn()]
            self.bar = Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal)
            self.bar.add_task("", total=None if share is None else 1.0)
            self.bar.start()
        self.bar.update(self.bar.task_ids[0], completed=share or 0.0, description=f"{tokens:,} tokens of {name}")
        if share == 1:
            self.bar.stop()
            self.bar = None
            self._say(f"{tokens:,} tokens of {name}")

    def began(self, start: Start) -> None:
        count = sum(p.numel() for p in start.trainer.trained)
        self._say(f"{count:,} parameters are trained, for {start.steps:,} steps, in {start.folder}")
        if start.done:
            self._say(f"going on after step {start.done:,}")
        a_token = work(start.trainer)
        self.share = a_token and a_token / (fastest(start.trainer) * start.trainer.world.size)  # of all machines
        columns = [
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            TimeRemainingColumn(),
        ]
        self.progress = Progress(*columns, console=self.console, disable=not self.console.is_terminal)
        self.task = self.progress.add_task("", total=start.steps, completed=start.done)
        self.steps = start.steps
        self.progress.start()

    def stepped(self, step: Step, seconds: float) -> None:
        self.loss = step.loss if not self.loss else 0.9 * self.loss + 0.1 * step.loss
        self.per_second = self.speed.add(step.tokens, seconds)
        self.progress.update(self.task, completed=step.number, description=self._now())

    def _now(self) -> str:
        busy = f"   {100 * self.share * self.per_second:.0f}% of peak" if self.share else ""
        return f"loss {self.loss:.4f}   {self.per_second:,.0f} tokens/s{busy}"

    def evaluated(self, step: int, loss: float) -> None:
        self._say(f"step {step:>{len(str(self.steps))}}   validation {loss:.4f}   {self._now()}")

    def noticed(self, step: int, what: str) -> None:
        self._say(f"step {step}: {what}")

    def ended(self) -> None:
        self.progress.stop()

    def _say(self, text: str) -> None:
        self.console.print(text, soft_wrap=True, markup=False)
