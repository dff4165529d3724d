"""Detects silent truncation: requests of different length with the same input tokens.

Small context windows (Ollama's default) keep a prompt's end; only the usage shows it.
"""

from batchrun.models import Request

ROWS = 3  # Requests of the same count, with lengths apart by the factor `APART`, that are no coincidence
APART = 1.25
FEWEST = 256  # Input tokens below which equal counts are common
BYTES_A_TOKEN = 6.0  # Bytes per counted token above which a request was truncated; texts have 2 to 5
_MOST = 1000


class Cuts:
    """Reports once."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[int, int, int]] = {}
        self._reported = False

    def look(self, request: Request, input_tokens: int) -> str | None:
        """The notice if this reply shows truncation; requests with images are skipped."""
        if self._reported or input_tokens < FEWEST or request.files or b";base64," in request.body:
            return None
        return self.look_at(len(request.body), input_tokens)

    def look_at(self, size: int, input_tokens: int) -> str | None:
        """The same by the size of a body without images."""
        if self._reported:
            return None
        rows, least, most = self._seen.get(input_tokens, (0, size, size))
        rows, least, most = rows + 1, min(least, size), max(most, size)
        if len(self._seen) >= _MOST:
            self._seen.clear()
        self._seen[input_tokens] = rows, least, most
        if rows < ROWS or most < APART * least or most < BYTES_A_TOKEN * input_tokens:
            return None
        self._reported = True
        return (
            f"{rows} requests of {least:,} to {most:,} bytes counted {input_tokens:,} input tokens each: the server seems to "
            "truncate longer prompts silently; give it a larger context window, or shorter rows"
        )
