"""Records a terminal session for the README from a real run over the examples: python docs/recording.py

The commands run in a pseudo-terminal against the simulated provider, and the picture says so. The result is one SVG
whose lines appear and go by a CSS animation; a viewer without animations shows the last screen.
"""

import fcntl
import html
import os
import pty
import shutil
import struct
import subprocess
import tempfile
import termios
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "docs" / "pictures" / "demo.svg"
COLUMNS, LINES = 108, 26
CHARACTER, LINE = 8.4, 19.0  # pixels of one cell at 14 px
TYPED, PAUSE, LONGEST, END = (
    0.03,
    0.9,
    0.6,
    6.0,
)  # seconds: a key, after a command, a wait that is shown, the last screen
COMMANDS = (
    "batchrun -i udhr.jsonl -p translate --set language=French -o udhr.fr.jsonl",
    "python side_by_side.py udhr.fr.jsonl",
)


class Screen:
    """The lines of a terminal: text, carriage returns and line feeds; colours and titles are left out."""

    def __init__(self) -> None:
        self.lines = [""]
        self.column = 0
        self._escape = ""

    def write(self, text: str) -> None:
        for character in text:
            if self._escape:
                self._escape += character
                if (character.isalpha() and len(self._escape) > 2) or character == "\a" or len(self._escape) > 60:
                    self._escape = ""
            elif character == "\x1b":
                self._escape = character
            elif character == "\r":
                self.column = 0
            elif character == "\n":
                self.lines.append("")
            elif character >= " ":
                if self.column == COLUMNS:
                    self.lines.append("")
                    self.column = 0
                line = self.lines[-1].ljust(self.column)
                self.lines[-1] = line[: self.column] + character + line[self.column + 1 :]
                self.column += 1

    def shown(self) -> tuple[str, ...]:
        return tuple(line.rstrip() for line in self.lines[-LINES:])


def outputs(command: str, folder: Path) -> Iterator[tuple[float, str]]:
    """What a command writes to a terminal, with the seconds since the piece before."""
    environment = {**os.environ, "PATH": f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}", "TERM": "xterm-256color"}
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    with subprocess.Popen(  # noqa: S603  # the commands are those above
        ["/bin/sh", "-c", command],
        cwd=folder,
        env=environment,
        stdin=follower,
        stdout=follower,
        stderr=follower,
    ) as process:
        os.close(follower)
        last = time.monotonic()
        while True:
            try:
                data = os.read(leader, 65_536)
            except OSError:  # the end of a pseudo-terminal on Linux
                break
            if not data:
                break
            yield time.monotonic() - last, data.decode("utf-8", "replace")
            last = time.monotonic()
    os.close(leader)
    if process.returncode:
        raise SystemExit(f"{command}: exit code {process.returncode}")


def frames(folder: Path) -> list[tuple[float, tuple[str, ...]]]:
    """The screens of the session, each with the second at which it appears."""
    screen, now, taken = Screen(), 0.0, list[tuple[float, tuple[str, ...]]]()
    for command in COMMANDS:
        screen.write("$ ")
        for character in command:
            screen.write(character)
            now += TYPED
            taken.append((now, screen.shown()))
        screen.write("\r\n")
        now += 0.3
        for waited, text in outputs(command, folder):
            now += min(waited, LONGEST)
            screen.write(text)
            taken.append((now, screen.shown()))
        now += PAUSE
    return taken


def drawn(taken: list[tuple[float, tuple[str, ...]]]) -> str:
    """The SVG: a text for every line of the screen and every content that it had, visible for its time."""
    length = taken[-1][0] + END
    spans: list[tuple[int, str, float, float]] = []
    begun: dict[int, tuple[str, float]] = {}
    for at, lines in [*taken, (length, ())]:
        for place in range(LINES):
            content = lines[place] if place < len(lines) else ""
            held, since = begun.get(place, ("", 0.0))
            if content != held or at == length:
                if held and at > since:
                    spans.append((place, held, since, at))
                begun[place] = (content, at)
    width, height = COLUMNS * CHARACTER + 32, LINES * LINE + 56
    styles, texts = list[str](), list[str]()
    for number, (place, content, since, until) in enumerate(spans):
        kind = "c" if content.startswith("$ ") else "s" if content.startswith("batchrun:") else "t"
        if since > 0 or until < length:
            first, last = 100 * since / length, min(100 * until / length, 100)
            styles.append(
                f"@keyframes k{number}{{0%,{max(first - 0.001, 0):.3f}%{{opacity:0}}{first:.3f}%,"
                f"{max(last - 0.001, first):.3f}%{{opacity:1}}{last:.3f}%,100%{{opacity:{int(until == length)}}}}}"
                f"#l{number}{{animation:k{number} {length:.1f}s infinite step-end;opacity:{int(until == length)}}}"
            )
        texts.append(
            f'<text id="l{number}" class="{kind}" x="16" y="{44 + (place + 1) * LINE - 5:.0f}">{html.escape(content)}</text>'
        )
    dots = "".join(
        f'<circle cx="{22 + 18 * place}" cy="20" r="6" fill="#{colour}"/>'
        for place, colour in enumerate(("ff5f57", "febc2e", "28c840"))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
        'aria-label="A terminal: batchrun translates 30 rows with the simulated provider and shows them">'
        "<style>text{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;white-space:pre}"
        ".t{fill:#c9d1d9}.c{fill:#f0f6fc;font-weight:600}.s{fill:#7ee787}" + "".join(styles) + "</style>"
        f'<rect width="100%" height="100%" rx="8" fill="#0d1117"/>{dots}' + "".join(texts) + "</svg>\n"
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        where = Path(name)
        for each in ("udhr.jsonl", "side_by_side.py"):
            shutil.copy(ROOT / "examples" / each, where)
        shutil.copy(ROOT / "examples" / "demo.toml", where / "batchrun.toml")
        TARGET.write_text(drawn(frames(where)), encoding="utf-8")
        print(f"{TARGET.relative_to(ROOT)}: {TARGET.stat().st_size // 1024} KiB")
