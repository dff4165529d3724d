"""What an answer to a call about files and batches says. Pure."""

import email.utils
import json
import time
from typing import Any

from batchrun.lanes.shapes import json_object
from batchrun.models import Exchange

_LONGEST = 3600.0


def body_of(answer: Exchange) -> dict[str, Any]:
    """The JSON object of an answer, an empty one where it is none."""
    try:
        return json_object(json.loads(answer.body))
    except ValueError:
        return {}


def said(answer: Exchange) -> str:
    """What an answer says, for people: its error's message, else its beginning, else why there is none."""
    error = body_of(answer).get("error")
    message = json_object(error).get("message") if isinstance(error, dict) else error
    text = str(message or answer.body[:300].decode("utf-8", "replace") or answer.detail or answer.fault or "no answer")
    return f"{answer.status}: {text}" if answer.status else text


def retry_after(answer: Exchange) -> float:
    """The seconds that an answer asks to wait, as a number or a date (RFC 9110, 10.2.3), at most an hour; 0 for none."""
    given = str(answer.headers.get("retry-after") or "")
    try:
        seconds = float(given)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(given).timestamp() - time.time()
        except ValueError:
            return 0.0
    return min(_LONGEST, seconds) if seconds > 0 else 0.0
