"""The native mock provider: compiled when it is needed, started, asked what it saw."""

import contextlib
import os
import struct
import subprocess
import tempfile
import urllib.request
from bisect import bisect_left
from collections.abc import Generator
from pathlib import Path
from typing import NamedTuple

SOURCE = Path(__file__).with_name("mock.c")
_ARRIVAL = struct.Struct("dii")


class Arrivals(NamedTuple):
    """When requests came, in order and in the clock of `time.monotonic`; which were let in, and tokens of each."""

    at: list[float]
    admitted: list[bool]
    tokens: list[int]

    @property
    def refused(self) -> int:
        """How many got a 429."""
        return self.admitted.count(False)

    def most_in(self, seconds: float) -> int:
        """The most that came within any stretch of so many seconds, refused ones too."""
        return max((end - bisect_left(self.at, at - seconds + 1e-9) for end, at in enumerate(self.at, 1)), default=0)

    def most_tokens_in(self, seconds: float) -> int:
        """The most admitted tokens within any stretch of so many seconds."""
        most = held = start = 0
        for at, admitted, tokens in zip(*self, strict=True):
            held += tokens * admitted
            while self.at[start] <= at - seconds:
                held -= self.tokens[start] * self.admitted[start]
                start += 1
            most = max(most, held)
        return most

    def after(self, seconds: float) -> "Arrivals":
        """Those that came later than so many seconds after the first."""
        start = bisect_left(self.at, self.at[0] + seconds)
        return Arrivals(self.at[start:], self.admitted[start:], self.tokens[start:])


class Mock:
    """A running provider."""

    def __init__(self, port: int, pid: int) -> None:
        self.port, self.pid = port, pid
        self.base_url = f"http://127.0.0.1:{port}/v1"

    def arrivals(self) -> Arrivals:
        """Everything that came since the last `reset`."""
        found = list(_ARRIVAL.iter_unpack(self._ask("log")))
        return Arrivals(
            [at for at, *_ in found], [status == 200 for _, status, _ in found], [used for *_, used in found]
        )

    def peak(self) -> int:
        """The most requests in flight at once."""
        return int(self._ask("peak"))

    def reset(self) -> None:
        """Forget what came."""
        self._ask("reset")

    def _ask(self, what: str) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{what}", timeout=30) as answer:
            return answer.read()


def compiled(folder: Path) -> Path:
    """The program, made in `folder`."""
    program = folder / "mock"
    if not program.exists():
        subprocess.run(["gcc", "-O2", "-o", program, SOURCE, "-lm"], check=True)
    return program


@contextlib.contextmanager
def serving(program: Path, **options: float) -> Generator[Mock]:
    """A provider for as long as the block lasts; `options` as mock.c names them."""
    words = [f"{name}={value}" for name, value in options.items()]
    with tempfile.TemporaryFile() as errors:
        server = subprocess.Popen([program, "serve", *words], stdout=subprocess.PIPE, stderr=errors, text=True)
        try:
            assert server.stdout is not None
            yield Mock(int(server.stdout.readline()), server.pid)
        finally:
            server.terminate()
            server.wait()


def ceiling(program: Path, mock: Mock, connections: int, requests: int, cpu: int | None) -> float:
    """Requests per second that a native client gets out of it."""
    command = [program, "load", str(mock.port), str(connections), str(requests)]
    pin = None if cpu is None else lambda: os.sched_setaffinity(0, {cpu})
    return float(subprocess.run(command, check=True, capture_output=True, text=True, preexec_fn=pin).stdout)
