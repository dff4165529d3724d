"""Dialogs: a choice, a confirmation, the limits, the keys."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen, Screen
from textual.widgets import Button, Input, Label, OptionList
from textual.widgets.option_list import Option

from batchrun.errors import BatchrunError
from batchrun.tui.screen_lifecycle import LifecycleScreen
from batchrun.tui.services import Bounds, RunSnapshot, app_of
from batchrun.tui.widgets.controls import Field

MORE = 1.25  # factor per key press


class Choose(ModalScreen[str | None]):
    CSS_PATH = "ask.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q", "dismiss(None)", "Close")]

    def __init__(self, question: str, options: Sequence[tuple[str, str]]) -> None:
        super().__init__()
        self._question = question
        self._options = options

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Label(Content(self._question), classes="question")
            yield OptionList(*(Option(Content(text), id=name) for name, text in self._options), compact=True)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(event.option.id)


class Confirm(ModalScreen[str | None]):
    CSS_PATH = "ask.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "Cancel"),
        Binding("left", "app.focus_previous", show=False),
        Binding("right", "app.focus_next", show=False),
    ]

    def __init__(self, question: str, detail: str, answers: Sequence[tuple[str, str, str]]) -> None:
        # `answers` are (id, label, variant)
        super().__init__()
        self._question = question
        self._detail = detail
        self._answers = answers

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Label(Content(self._question), classes="question")
            yield Label(Content(self._detail), classes="detail")
            with Horizontal(classes="answers"):
                for name, label, variant in self._answers:
                    yield Button(Content(label), id=name, variant=variant, compact=True)  # pyright: ignore[reportArgumentType]  one of Textual's names, by the caller
                yield Button("Cancel", id="cancel", compact=True)

    def on_button_pressed(self, event: Button.Pressed) -> None:
        self.dismiss(None if event.button.id == "cancel" else event.button.id)


class AskBounds(ModalScreen[Bounds | None]):
    CSS_PATH = "ask.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss(None)", "Cancel")]

    def __init__(self, bounds: Bounds) -> None:
        super().__init__()
        self._bounds = bounds

    def compose(self) -> ComposeResult:
        values = (
            ("cap", "requests in flight, at most", str(self._bounds.cap)),
            ("rpm", "requests per minute", _shown(self._bounds.rpm)),
            ("tpm", "tokens per minute", _shown(self._bounds.tpm)),
        )
        with Vertical(classes="dialog"):
            yield Label("Change limits", classes="question")
            for name, label, value in values:
                with Horizontal(classes="field"):
                    yield Label(label)
                    yield Field(value, id=name, placeholder="none set")
            yield Label("", id="wrong")
            with Horizontal(classes="answers"):
                yield Button("Set", id="set", variant="primary", compact=True)
                yield Button("Cancel", id="cancel", compact=True)

    def on_button_pressed(self, event: Button.Pressed) -> None:
        self._finish() if event.button.id == "set" else self.dismiss(None)

    def on_input_submitted(self) -> None:
        self._finish()

    def _finish(self) -> None:
        try:
            typed = {name: self.query_one(f"#{name}", Input).value for name in ("cap", "rpm", "tpm")}
            self.dismiss(bounds_of(**typed))
        except BatchrunError as error:
            self.query_one("#wrong", Label).update(Content(error.message))


def bounds_of(cap: str, rpm: str, tpm: str) -> Bounds:
    """Raises RefusedError."""
    from batchrun.plan.sources import gather  # noqa: PLC0415  a cycle of meaning, not of imports: only where typed

    flags = {name: value for name, value in (("concurrency", cap), ("rpm", rpm), ("tpm", tpm)) if value.strip()}
    settings = gather(flags).settings
    return Bounds(
        settings.concurrency, settings.rpm if "rpm" in flags else None, settings.tpm if "tpm" in flags else None
    )


def stepped(bounds: Bounds, name: str, direction: int, snapshot: RunSnapshot) -> Bounds:
    """Lowering an unlimited rate starts at its current value."""
    limits = snapshot.progress.limits
    now = {"cap": float(bounds.cap), "rpm": bounds.rpm, "tpm": bounds.tpm}[name]
    if now is None:
        if direction > 0:
            return bounds
        measured = snapshot.progress.row_rate * 60 if name == "rpm" else snapshot.progress.token_rate * 60
        stated = cast("float | None", getattr(limits, name, None))
        now = stated or max(60.0, measured)
    value = now * MORE if direction > 0 else now / MORE
    if name == "cap":
        step = max(1, round(abs(value - now)))
        return bounds._replace(cap=max(1, bounds.cap + direction * step))
    return bounds._replace(**{name: max(1.0, round(value))})


def _shown(rate: float | None) -> str:
    return "" if rate is None else f"{rate:g}"


class Help(ModalScreen[None]):
    CSS_PATH = "ask.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,question_mark,f1", "dismiss(None)", "Close")]

    def __init__(self, about: Screen[Any]) -> None:
        super().__init__()
        self._about = about.ABOUT if isinstance(about, LifecycleScreen) else ""
        self._groups = key_groups(about)

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="dialog"):
            yield Label("Keys", classes="question")
            if self._about:
                yield Label(Content(self._about), classes="detail")
            for title, keys in self._groups.items():
                yield Label(title, classes="title")
                for does, pressed in keys.items():
                    with Horizontal(classes="key"):
                        yield Label(Content(" ".join(pressed)), classes="pressed")
                        yield Label(Content(does), classes="does")


def key_groups(about: Screen[Any]) -> dict[str, dict[str, list[str]]]:
    groups: Mapping[str, tuple[str, ...]] = about.KEY_GROUPS if isinstance(about, LifecycleScreen) else {}
    titles = {key: title for title, keys in groups.items() for key in keys}
    found: dict[str, dict[str, list[str]]] = {}
    for active in about.active_bindings.values():
        binding = active.binding
        if not binding.description or not binding.id:
            continue
        own = "everywhere" if active.node is app_of(about) else "this screen" if active.node is about else "this pane"
        keys = found.setdefault(titles.get(binding.id, own), {})
        keys.setdefault(binding.tooltip or binding.description, []).append(app_of(about).get_key_display(binding))
    last = ("this pane", "this screen", "everywhere")
    order = sorted(found, key=lambda title: last.index(title) if title in last else -1)
    return {title: found[title] for title in order}
