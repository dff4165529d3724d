"""The prompt editor: line numbers, colours, the line with the error, undo."""

from pathlib import Path

import pytest
import tui
from textual.widgets import Input

from batchrun.tui.widgets.editor import Editor, PromptStatus, highlights

# Slow: each test starts the app.
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("undisturbed", "alone")]

LONG = "user:\n" + "".join(f"Line {number}.\n" for number in range(2, 60)) + "{{ text * 2 }}\n"
"""The error is on line 60."""


@pytest.mark.parametrize(("size", "ways"), [((80, 24), ["ctrl+g", "click"]), ((120, 36), ["f5"])])
async def test_an_error_is_marked_at_its_line_and_a_key_or_a_click_goes_there(
    tmp_path: Path, size: tuple[int, int], ways: list[str]
) -> None:
    tui.place(tmp_path, tui.rows(2))
    Path("prompts/long.prompty").write_text(LONG)
    async with tui.app().run_test(size=size) as pilot:
        await tui.ready(pilot)
        editor = tui.setup(pilot).query_one(Editor)
        tui.setup(pilot).query_one("#prompt", Input).value = "prompts/long.prompty"
        await tui.until(pilot, lambda: "line 60 (Ctrl+G)" in _status(editor))
        assert editor.cursor_location == (59, 0)
        for way in ways:
            editor.move_cursor((0, 0))
            pane = "prompt-pane" if way == "click" else "form"
            tui.setup(pilot).show_pane(pane)
            await tui.until(pilot, lambda pane=pane: (pilot.app.focused is editor) == (pane == "prompt-pane"))
            await tui.until(pilot, lambda: editor.cursor_location == (0, 0) and "line 60 (Ctrl+G)" in _status(editor))
            await pilot.click(PromptStatus) if way == "click" else await pilot.press(way)
            await tui.until(pilot, lambda: editor.cursor_location == (59, 0) and pilot.app.focused is editor)
            await tui.until(pilot, lambda: "60✗ {{ text * 2 }}" in tui.shown(pilot))
        await pilot.press("ctrl+k")
        await tui.until(pilot, lambda: "line 60, column 1 · ● edited" in _status(editor))
        assert "✗ {{" not in tui.shown(pilot)


def _status(editor: Editor) -> str:
    return str(editor.screen.query_one(PromptStatus).content)


async def test_a_change_is_taken_back_and_made_again_and_the_mark_goes_with_it(tmp_path: Path) -> None:
    tui.place(tmp_path, tui.rows(2))
    async with tui.app().run_test(size=(120, 36)) as pilot:
        await tui.ready(pilot)
        editor = tui.setup(pilot).query_one(Editor)
        before = editor.text
        editor.focus()
        await pilot.press("x")
        await tui.until(pilot, lambda: "● edited" in _status(editor) and "● edited · prompts" in tui.shown(pilot))
        await pilot.press("ctrl+z")
        await tui.until(pilot, lambda: "● edited" not in tui.shown(pilot))
        assert editor.text == before
        await pilot.press("ctrl+y")
        await tui.until(pilot, lambda: "● edited" in _status(editor))


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (["---", "é: 3  # three", "---"], {"fence": ["---", "---"], "key": ["é:"], "value": ["3"], "comment": ["# three"]}),
        (["---", "a: 'x # y'", "b: one-2", "---"], {"fence": ["---", "---"], "key": ["a:", "b:"], "value": ["'x # y'"]}),
        (["system:", "{# no #}é {{ a | upper }}{% if b %}"], {
            "role": ["system:"], "comment": ["{# no #}"], "variable": ["{{ a | upper }}"], "statement": ["upper", "{% if b %}"],
        }),
        (["---", "a: one, 'two', 3", "# four", "---"], {"fence": ["---", "---"], "key": ["a:"], "comment": ["# four"]}),
        (["no: key", "3"], {}),
    ],
)  # fmt: skip
def test_what_is_coloured(lines: list[str], found: dict[str, list[str]]) -> None:
    seen: dict[str, list[str]] = {}
    for number, start, end, name in highlights(lines):
        seen.setdefault(name, []).append(lines[number].encode()[start:end].decode())
    assert seen == found
