"""Every colour of a text against every ground it is drawn on, in both themes: WCAG 2.2, 4.5:1 for text (AA), 3:1 for marks."""

import pytest
from textual.color import Color
from textual.theme import Theme

from batchrun.tui.app import DARK, LIGHT, BatchrunApp
from batchrun.tui.widgets import paint

TEXTS = ("foreground", "foreground-muted", "primary", "secondary", "accent", "success", "warning", "error")
GROUNDS = ("background", "surface", "panel", "primary-muted")
"""Panes; fields and bars; the first line, the checklist and heads of tables; the row under the cursor."""
MARKS = (("scrollbar", "background"), ("scrollbar", "surface"), ("primary", "background"))
"""Parts of scrollbars, the frame of the pane that has the focus."""


def luminance(colour: Color) -> float:
    """The relative luminance of WCAG 2."""
    red, green, blue = (
        part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in colour.normalized
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(over: Color, under: Color) -> float:
    """1 to 21."""
    dark, light = sorted((luminance(over), luminance(under)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", [DARK, LIGHT], ids=lambda theme: str(theme.name))
def test_every_text_can_be_read_on_every_ground(theme: Theme) -> None:
    colours = {name: Color.parse(value) for name, value in _colours(theme).items()}
    table = {(text, ground): contrast(colours[text], colours[ground]) for text in TEXTS for ground in GROUNDS}
    assert {pair: round(found, 2) for pair, found in table.items() if found < 4.5} == {}
    marks = {pair: contrast(colours[pair[0]], colours[pair[1]]) for pair in MARKS}
    assert {pair: round(found, 2) for pair, found in marks.items() if found < 3} == {}


@pytest.mark.parametrize("theme", [DARK, LIGHT], ids=lambda theme: str(theme.name))
def test_keys_of_the_footer_and_selected_text_can_be_read(theme: Theme) -> None:
    colours = _colours(theme)
    surface, selection = Color.parse(colours["surface"]), Color.parse(colours["input-selection-background"])
    assert contrast(Color.parse(colours["footer-key-foreground"]), surface) >= 4.5
    assert contrast(Color.parse(colours["footer-description-foreground"]), surface) >= 4.5
    under = Color.parse(colours["background"]).blend(selection, selection.a, alpha=1)
    assert contrast(Color.parse(colours["foreground"]), under) >= 4.5


def _colours(theme: Theme) -> dict[str, str]:
    """The variables that the style sheets of the app use."""
    wanted = (*TEXTS, *GROUNDS, "scrollbar", "footer-key-foreground", "footer-description-foreground")
    app = BatchrunApp(settings={"theme": theme.name})
    found = app.get_css_variables()
    return {name: found[name] for name in (*wanted, "input-selection-background")}


def test_every_state_has_a_sign_and_a_block_of_its_own() -> None:
    signs = [sign for _, sign, _ in paint.STATES]
    blocks = [paint._BAR[name] for name, _, _ in paint.STATES]
    assert len(set(signs)) == len(set(blocks)) == len(paint.STATES)
