"""All options that the setup form lacks."""

import shlex
from collections.abc import Mapping
from typing import Any, ClassVar, cast

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, Label, Static

from batchrun.display import printable
from batchrun.errors import BatchrunError
from batchrun.plan.options import OPTIONS, Option
from batchrun.tui.widgets.controls import Field

ELSEWHERE = frozenset({
    *("input", "prompt", "set", "columns", "model", "profile", "output"),  # fields of the form
    *("yes", "json", "quiet", "no_progress", "verbose", "dry_run", "log_file"),  # about a command without a screen
})  # fmt: skip
TEMPERATURE = Option(
    "Model and provider", "temperature", ("temperature",), "0 to 2", "How much replies vary; the same as --param temperature=N."
)  # fmt: skip


def shown() -> tuple[Option, ...]:
    found: list[Option] = []
    for option in OPTIONS:
        if option.name == "params":
            found.append(TEMPERATURE)
        if option.name not in ELSEWHERE:
            found.append(option)
    return tuple(found)


def texts_of(flags: Mapping[str, Any]) -> dict[str, str]:
    """A set switch is `on`."""
    found: dict[str, str] = {}
    for name, value in flags.items():
        if isinstance(value, Mapping):
            sign = ":" if name == "headers" else "="
            pairs = cast("Mapping[Any, Any]", value).items()
            found[name] = shlex.join(f"{key}{sign}{text}" for key, text in pairs)
        elif isinstance(value, list | tuple):
            found[name] = shlex.join(map(str, cast("list[Any]", value)))
        elif value is True:
            found[name] = "on"
        elif value not in (None, False, ""):
            found[name] = str(value)
    params = shlex.split(found.pop("params", ""))
    for text in params:
        if text.startswith("temperature="):
            found["temperature"] = text.partition("=")[2]
    if rest := [text for text in params if not text.startswith("temperature=")]:
        found["params"] = shlex.join(rest)
    return found


def flags_of(texts: Mapping[str, str]) -> dict[str, Any]:
    """Raises ValueError for an unclosed quotation."""
    found: dict[str, Any] = {}
    for option in shown():
        text = texts.get(option.name, "").strip()
        if not text:
            continue
        if option.name == "temperature":
            found["params"] = [f"temperature={text}"]
        elif not option.metavar:
            found[option.name] = True
        elif option.many:
            found[option.name] = [*found.get(option.name, []), *shlex.split(text)]
        else:
            found[option.name] = text
    return found


class Tick(Static, can_focus=True):
    BINDINGS: ClassVar[list[BindingType]] = [Binding("space", "tick", "Tick", show=False)]
    ALLOW_SELECT = False

    def __init__(self, *, ticked: bool) -> None:
        super().__init__()
        self.ticked = ticked

    def render(self) -> Content:
        return Content("[✓]" if self.ticked else "[ ]")

    def action_tick(self) -> None:
        self.ticked = not self.ticked
        self.refresh()

    def on_click(self) -> None:
        self.action_tick()


class OptionLine(Horizontal):
    def __init__(self, option: Option, text: str) -> None:
        super().__init__()
        self.option = option
        self._text = text

    def compose(self) -> ComposeResult:
        yield Label(self.option.spellings[-1], classes="name")
        if self.option.metavar:
            yield Field(self._text, placeholder=self.option.metavar)
        else:
            yield Tick(ticked=bool(self._text))
        yield Label(Content(self.option.help), classes="help")

    @property
    def text(self) -> str:
        if not self.option.metavar:
            return "on" if self.query_one(Tick).ticked else ""
        return self.query_one(Input).value

    def matches(self, wanted: str) -> bool:
        text_of_option = f"{self.option.name} {self.option.spellings[-1]} {self.option.help}".lower()
        return all(word in text_of_option for word in wanted.lower().split())


class OptionsScreen(ModalScreen[dict[str, Any] | None]):
    """Returns invalid flags too: the setup reports them."""

    CSS_PATH = "options.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (110, "-wide")]  # noqa: RUF012  Textual declares it so
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,f5", "done", "Back to the setup", priority=True),
        Binding("up", "app.focus_previous", show=False),
        Binding("down,enter", "app.focus_next", show=False),
    ]

    def __init__(self, flags: Mapping[str, Any]) -> None:
        super().__init__()
        self._other = {
            name: value
            for name, value in flags.items()
            if name in ELSEWHERE or not any(option.name == name for option in OPTIONS)
        }
        self._texts = texts_of({name: value for name, value in flags.items() if name not in self._other})

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as dialog:
            dialog.border_title = "options"
            dialog.border_subtitle = "Escape: back to the setup · Space ticks a box"
            yield Field(placeholder="find an option: temperature, budget, tier, cache …", id="find")
            with VerticalScroll(id="lines", can_focus=False):
                section = ""
                for option in shown():
                    if option.section != section:
                        section = option.section
                        yield Label(section, classes="title")
                    yield OptionLine(option, self._texts.get(option.name, ""))
            yield Static("", id="about")
            yield Static("", id="wrong")

    @on(Input.Changed, "#find")
    def _search(self, event: Input.Changed) -> None:
        for line in self.query(OptionLine):
            line.display = line.matches(event.value)
        for title in self.query(".title"):
            title.display = not event.value.strip()

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        line = event.widget.parent
        if isinstance(line, OptionLine):
            choices = f"  One of {', '.join(line.option.choices)}." if line.option.choices else ""
            many = "  Separate several by spaces." if line.option.many else ""
            self.query_one("#about", Static).update(Content(f"{line.option.help}{choices}{many}"))

    def on_descendant_blur(self) -> None:
        try:
            refusal = _refused(self._typed())
        except ValueError as error:
            refusal = f"unclosed quotation mark: {error}"
        self.query_one("#wrong", Static).update(Content(printable(refusal or "", 300)))

    def _typed(self) -> dict[str, Any]:
        return flags_of({line.option.name: line.text for line in self.query(OptionLine)})

    def action_done(self) -> None:
        try:
            self.dismiss({**self._other, **self._typed()})
        except ValueError as error:
            self.query_one("#wrong", Static).update(Content(f"unclosed quotation mark: {error}"))


def _refused(flags: Mapping[str, Any]) -> str | None:
    from batchrun.plan.sources import gather  # noqa: PLC0415  not before the first frame

    try:
        gather(flags)
    except BatchrunError as error:
        return error.message
    return None
