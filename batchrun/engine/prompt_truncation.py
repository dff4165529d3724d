"""Prompts that a server shortens without a word: requests of different length that count the same input tokens.

Servers with a small context window (Ollama's default, for one) keep the end of a longer prompt and answer as if nothing
had happened. All that tells is the usage: it stays at the window, however long the request is.
"""

from batchrun.models import Request

ROWS = 3
"""Requests of the same count that are no coincidence, if their lengths differ by the factor `APART`."""
APART = 1.25
FEWEST = 256
"""Input tokens below which equal counts are common."""
BYTES_A_TOKEN = 6.0
"""Bytes of a request for each token from which on it is longer than what was counted; texts have 2 to 5."""
_MOST = 1000


class Cuts:
    """Looks at each reply's usage; says once what it found."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[int, int, int]] = {}
        self._told = False

    def look(self, request: Request, input_tokens: int) -> str | None:
        """The notice, where this reply shows that prompts are cut; None otherwise. Images are no text and count alike."""
        if self._told or input_tokens < FEWEST or request.files or b";base64," in request.body:
            return None
        size = len(request.body)
        rows, least, most = self._seen.get(input_tokens, (0, size, size))
        rows, least, most = rows + 1, min(least, size), max(most, size)
        if len(self._seen) >= _MOST:
            self._seen.clear()
        self._seen[input_tokens] = rows, least, most
        if rows < ROWS or most < APART * least or most < BYTES_A_TOKEN * input_tokens:
            return None
        self._told = True
        return (
            f"{rows} requests of {least:,} to {most:,} bytes counted {input_tokens:,} input tokens each: the server seems to "
            "cut longer prompts without saying so; give it a larger context window, or shorter rows"
        )
