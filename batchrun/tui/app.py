"""The Textual app. However it ends, the engine is stopped and awaited first."""

import asyncio
import contextlib
import importlib
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from textual import work
from textual.app import SystemCommand
from textual.binding import Binding, BindingType
from textual.driver import Driver
from textual.screen import Screen
from textual.theme import Theme

from batchrun.display import printable
from batchrun.errors import BatchrunError, ExitCode
from batchrun.plan.names import unknown
from batchrun.report import words
from batchrun.tui import shutdown
from batchrun.tui.screen_lifecycle import MAIN, LifecycleApp
from batchrun.tui.screens.dialogs import Confirm, Help
from batchrun.tui.screens.setup import SetupScreen
from batchrun.tui.services import EstimateText, NewRun, Phase, ResumedRun, Steered, Task, Watched
from batchrun.tui.widgets.form import Form

if TYPE_CHECKING:
    from batchrun.journal import Wanted
    from batchrun.registry import RunFile
    from batchrun.tui.screens.run import RunScreen
    from batchrun.tui.screens.start import StartScreen
    from batchrun.tui.session import Session

DARK = Theme(
    name="batchrun-dark",
    primary="#6bb3de",
    secondary="#9fb8ad",
    accent="#86bcd3",
    success="#93b893",
    warning="#d8a657",
    error="#f48f97",
    foreground="#d0d3d9",
    background="#15181d",
    surface="#1c2027",
    panel="#2b313c",
    variables={"foreground-muted": "#a9b0bb", "primary-muted": "#274050", "scrollbar": "#6a7482"},
    dark=True,
)
# text has a contrast of 4.5:1 (WCAG 2.2 AA)
LIGHT = Theme(
    name="batchrun-light",
    primary="#1f5f8f",
    secondary="#3f5f53",
    accent="#1a5f78",
    success="#2f6636",
    warning="#7a5200",
    error="#a3242f",
    foreground="#24292f",
    background="#fbfbfa",
    surface="#f0f1f2",
    panel="#d6dae0",
    variables={"foreground-muted": "#4f5862", "primary-muted": "#cfdfe9", "scrollbar": "#848c96"},
    dark=False,
)
# seconds to wait for a run without a request; its input may be a pipe without data
UNSENT_TIMEOUT = 2.0


class BatchrunApp(LifecycleApp):
    TITLE = "batchrun"
    CSS_PATH = "app.tcss"
    ENABLE_COMMAND_PALETTE = True
    SCREENS: ClassVar[dict[str, Callable[[], Screen[Any]]]] = {
        "start": lambda: _imported("batchrun.tui.screens.start").StartScreen(),
        "run": lambda: _imported("batchrun.tui.screens.run").RunScreen(),
        "runs": lambda: _imported("batchrun.tui.screens.runs").RunsScreen(),
    }
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f1,question_mark", "help", "Help", id="app.help", tooltip="List the keys of this screen"),
        Binding("q,ctrl+q", "leave", "Quit", id="app.quit", tooltip="Quit; asks first if something would be lost"),
        Binding("f2", "show('setup')", "Setup", show=False, id="app.setup", tooltip="Set up a run"),
        Binding("f3", "show('run')", "Run", show=False, id="app.run", tooltip="The run that is shown"),
        Binding("f4", "show('runs')", "Runs", show=False, id="app.runs", tooltip="All runs of this directory"),
        Binding(
            "f9", "show('start')", "Start page", show=False, id="app.start", tooltip="Recent runs, prompts, input files"
        ),
        Binding(
            "ctrl+c",
            "interrupt",
            "Interrupt",
            show=False,
            priority=True,
            id="app.interrupt",
            tooltip="Copy selected text; else stop the run and leave",
        ),
    ]

    def __init__(self, flags: Mapping[str, Any] | None = None, *, settings: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self._flags = dict(flags or {})
        self._settings = dict(settings or {})
        self._setup = SetupScreen(self._flags)
        self._session: Session | None = None
        self._leaving = False
        self._asked_to_save = False
        self._tried = 0
        self._exports: set[asyncio.Task[str]] = set()
        for theme in (DARK, LIGHT):
            self.register_theme(theme)
        self.theme = self._theme()

    def _theme(self) -> str:
        # raises RefusedError
        name = str(self._settings.get("theme") or DARK.name)
        if name not in self.available_themes:
            raise unknown("theme", name, self.available_themes)
        return name

    def on_mount(self) -> None:
        self.set_keymap(dict(self._settings.get("keys") or {}))
        self.install_screen(self._setup, "setup")  # pyright: ignore[reportUnknownMemberType]  Textual leaves results of screens open
        self.push_screen("setup")
        self.call_after_refresh(self._load_engine)

    @work(exit_on_error=False)
    async def _load_engine(self) -> None:
        await asyncio.to_thread(_imported, "batchrun.tui.session")

    def get_driver_class(self) -> type[Driver]:
        chosen = super().get_driver_class()
        if sys.platform == "win32":
            return chosen
        terminal = _imported("batchrun.tui.terminal")
        return {"LinuxDriver": terminal.Terminal, "WebDriver": terminal.Browser}.get(chosen.__name__, chosen)

    def terminal_gone(self) -> None:
        # a terminal may close without a signal
        shutdown.within(shutdown.HASTY_DRAIN + shutdown.GRACE, ExitCode.HANGUP)
        self.quit_on_signal(ExitCode.HANGUP)

    @property
    def time(self) -> float:
        return asyncio.get_running_loop().time()

    @property
    def steered(self) -> Steered | None:
        return self._session

    @property
    def busy(self) -> bool:
        return self._session is not None and self._session.active

    @property
    def runs_dir(self) -> str | None:
        found = self._flags.get("runs_dir")
        return None if found is None else str(found)

    def begin(self, task: Task) -> bool:
        if self._leaving:
            return False
        if self.busy:
            self.notify("a run is active; stop it first (F3, x)", severity="warning")
            return False
        session = self._session = _imported("batchrun.tui.session").Session(task)
        self._await(session, session.start())
        if isinstance(task, ResumedRun) or task.whole:
            self.show_run(session)
        return True

    def show_run(self, watched: Watched | None) -> None:
        cast("RunScreen", self.get_screen("run")).watch_run(watched)  # pyright: ignore[reportUnknownMemberType]  as above
        self.action_show("run")

    async def export(self, run: "RunFile") -> str:
        return await self._written(_imported("batchrun.tui.session").exported, run)

    async def export_rows(self, journal: Path, wanted: "Wanted") -> str:
        return await self._written(_imported("batchrun.tui.session").exported_rows, journal, wanted)

    async def _written(self, write: Callable[..., str], *what: object) -> str:
        writing = asyncio.create_task(asyncio.to_thread(write, *what))
        self._exports.add(writing)
        writing.add_done_callback(self._exports.discard)
        return await asyncio.shield(writing)

    async def refusal(self, flags: Mapping[str, Any]) -> BatchrunError | None:
        return await asyncio.to_thread(lambda: _imported("batchrun.tui.session").refusal(flags))

    async def estimate(self, flags: Mapping[str, Any], wanted: Callable[[], bool]) -> EstimateText | None:
        def still() -> bool:
            return wanted() and not self.busy

        return await asyncio.to_thread(lambda: _imported("batchrun.tui.session").estimate_text(flags, still))

    def edit_again(self, path: Path, position: int) -> None:
        self._setup.open_again(path, position)

    @work(group="session")
    async def _await(self, session: "Session", done: asyncio.Task[None]) -> None:
        # a defect of the engine ends the app with its traceback
        await asyncio.shield(done)
        self._ended(session)

    def _ended(self, session: "Session") -> None:
        if self._leaving:
            return
        if session.drift is not None:
            self._ask_about_drift(session)
            return
        if isinstance(session.task, NewRun) and not session.task.whole:
            self._tried += len(session.task.only or ()) or session.task.pilot or 0
            return
        snapshot = session.snapshot()
        refused = isinstance(session.task, NewRun) and snapshot.phase is Phase.REFUSED
        if refused and snapshot.trouble is not None:
            self._setup.refuse(BatchrunError(*snapshot.trouble))
        if refused and self.screen is self.get_screen("run"):  # pyright: ignore[reportUnknownMemberType]  as above
            self.action_show("setup")
        elif snapshot.trouble is not None:
            self.notify(printable(snapshot.trouble.message, 300), severity="error", timeout=8, markup=False)
        elif snapshot.progress.ended is not None and self.screen is not self.get_screen("run"):  # pyright: ignore[reportUnknownMemberType]  as above
            self.notify(words.account(snapshot.progress.ended.totals), timeout=8, markup=False)

    def _ask_about_drift(self, session: "Session") -> None:
        # replies are replaced only after a confirmation, except those of tries
        task, drift = session.task, session.drift
        assert isinstance(task, NewRun)
        assert drift is not None
        again = replace(task, flags={**task.flags, "update": True})
        if drift.done <= self._tried:
            self.begin(again)
            return

        def answered(answer: str | None) -> None:
            if answer == "update":
                self.begin(again)

        answers = [("update", f"Send {drift.done:,} again", "warning")]
        self.push_screen(Confirm("Rows that are done would be sent again", drift.message, answers), answered)

    def on_start_screen_chosen(self, event: "StartScreen.Chosen") -> None:
        self._setup.query_one(Form).choose(event.fields)
        self.action_show("setup")
        self._setup.go_to_missing()

    def action_show(self, name: str) -> None:
        while len(self.screen_stack) > MAIN:
            self.pop_screen()
        if self.screen is not self.get_screen(name):  # pyright: ignore[reportUnknownMemberType]  as above
            self.switch_screen(name)  # pyright: ignore[reportUnknownMemberType]  as above

    def action_help(self) -> None:
        if not isinstance(self.screen, Help):
            self.push_screen(Help(self.screen))

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        known: set[str] = set()
        for _, binding, enabled, _ in screen.active_bindings.values():
            action = binding.action
            if not enabled or not binding.id or action in known:  # those without an id are Textual's own
                continue
            known.add(action)
            text = f"{self.get_key_display(binding)}  {binding.tooltip or binding.description}"
            yield SystemCommand(
                binding.description, text, lambda action=action: self.call_later(self.run_action, action, self.screen)
            )
        yield SystemCommand("Theme", "change colours", self.action_change_theme)
        yield SystemCommand("Screenshot", "save an SVG picture of the screen", self.deliver_screenshot)

    def action_interrupt(self) -> None:
        selected = getattr(self.focused, "selected_text", "")
        if selected:
            self.copy_to_clipboard(str(selected))
        elif not self.busy:
            self._go(ExitCode.OK) if self._asked_to_save else self.action_leave()
        elif self._leaving and self._session is not None:
            self._session.abandon()
        else:
            self.notify("stopping: waiting for requests in flight; Ctrl-C again quits now", timeout=60)
            self._go(ExitCode.INTERRUPTED)

    def action_leave(self) -> None:
        unsaved = self._setup.unsaved
        if not unsaved:
            self._leave_run()
            return
        names = ", ".join(printable(str(path), 80) for path in unsaved)
        question = "The prompt is edited and not saved" if len(unsaved) == 1 else "Edited prompts are not saved"
        answers = [("save", "Save and quit", "primary"), ("discard", "Quit without saving", "warning")]
        self._asked_to_save = True
        self.push_screen(Confirm(question, f"saved as {names}", answers), self._saved)

    def _saved(self, answer: str | None) -> None:
        self._asked_to_save = False
        if answer == "discard" or (answer == "save" and self._setup.save_all()):
            self._leave_run()

    def _leave_run(self) -> None:
        if not self.busy:
            self._go(ExitCode.OK)
            return
        flying = 0 if self._session is None else self._session.snapshot().progress.in_flight
        answers = [("drain", "Wait for requests in flight", "primary"), ("now", "Quit now", "warning")]
        detail = f"{flying:,} requests are in flight. Every reply received is in the journal; resume at any time."
        self.push_screen(Confirm("A run is active", detail, answers), self._leave)

    def _leave(self, answer: str | None) -> None:
        if answer is None:
            return
        self._go(ExitCode.INTERRUPTED if self.busy else ExitCode.OK)  # it may have ended meanwhile
        if answer == "now" and self._session is not None:
            self._session.abandon()

    def quit_on_signal(self, code: ExitCode) -> None:
        if code is ExitCode.INTERRUPTED:
            self.action_interrupt()
        else:
            self._go(code, shutdown.HASTY_DRAIN)

    def _go(self, code: ExitCode, drain: float | None = None) -> None:
        if self._leaving:
            if self._session is not None:
                self._session.stop(code, drain)
            return
        self._leaving = True
        self._finishing = asyncio.get_running_loop().create_task(self._finish(code, drain))

    async def _finish(self, code: ExitCode, drain: float | None) -> None:
        if self.busy:
            await self.settle(code, drain)
        if self._exports:
            self.notify("an output is being written; the app quits when it is done", timeout=60)
            await asyncio.wait(self._exports, timeout=drain)
        self.exit(int(code), return_code=int(code))

    async def settle(self, code: ExitCode, drain: float | None) -> None:
        session = self._session
        if session is not None and session.active and session.done is not None:
            session.stop(code, drain)
            await asyncio.wait([session.done], timeout=None if session.prepared else UNSENT_TIMEOUT)

    def closing_lines(self) -> list[str]:
        if self._session is None:
            return []
        snapshot = self._session.snapshot()
        lines: list[str] = []
        if snapshot.trouble is not None and self._session.exit_code not in (ExitCode.OK, ExitCode.ROWS_FAILED):
            lines.append(printable(f"stopped: {snapshot.trouble.message}", 2000))
        ended = snapshot.progress.ended
        if ended is not None:
            kept = snapshot.journal is not None and snapshot.journal.exists()  # it may have been deleted since
            command = words.resume_command(ended.totals, snapshot.reference or "last", self.runs_dir) if kept else None
            lines.append(words.account(ended.totals) + (f"; resume with: {command}" if command else ""))
        return lines


def _imported(name: str) -> Any:
    return importlib.import_module(name)


def open_app(flags: Mapping[str, Any], *, settings: Mapping[str, Any], resume: Task | None = None) -> int:
    app = BatchrunApp(flags, settings=settings)
    if resume is not None:
        app.call_later(app.begin, resume)
    elif not flags.get("prompt") and not flags.get("input"):
        app.call_later(app.action_show, "start")
    return asyncio.run(_shown(app))


async def _shown(app: BatchrunApp) -> int:
    code = int(ExitCode.UNEXPECTED)
    with shutdown.signals(app.quit_on_signal):
        try:
            await app.run_async()
            code = int(app.return_code or 0)
        finally:
            # Also after a defect of a screen: nothing that was paid for is lost.
            await app.settle(ExitCode.TERMINATED, shutdown.HASTY_DRAIN)
            shutdown.within(shutdown.PRINT_TIMEOUT, code)
    # A pager that was ended by the end of the app leaves here what Textual catches while it paints.
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    with contextlib.suppress(OSError):  # a terminal that is gone
        for line in app.closing_lines():
            print(f"batchrun: {line}", file=sys.stderr)
    return code
