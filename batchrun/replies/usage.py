"""The tokens a body says it used, where that can be believed.

Only whole numbers from 0 to 10^12 count. Anything else (strings, null, fractions, nonsense) makes the usage unknown
rather than zero, because sums must not pretend.
"""

from typing import Any, TypeGuard

from batchrun.models import Usage
from batchrun.replies.shapes import is_object

_MOST_TOKENS = 10**12


def usage_of(body: dict[str, Any]) -> Usage | None:
    """The usage in the names of chat completions, completions and embeddings, or in those of responses."""
    usage = body.get("usage")
    if not is_object(usage):
        return None
    given: Any
    made: Any
    if "prompt_tokens" in usage:
        given, made = usage["prompt_tokens"], usage.get("completion_tokens", _rest(usage))
        of_given, of_made = usage.get("prompt_tokens_details"), usage.get("completion_tokens_details")
    else:
        given, made = usage.get("input_tokens"), usage.get("output_tokens")
        of_given, of_made = usage.get("input_tokens_details"), usage.get("output_tokens_details")
    if not (_is_count(given) and _is_count(made)):
        return None
    made = _with_unsaid(usage.get("total_tokens"), given, made)
    return Usage(given, made, _part(of_given, "cached_tokens", given), _part(of_made, "reasoning_tokens", made))


def _with_unsaid(total: Any, given: int, made: int) -> int:
    """The output with what only the total counts: Gemini's and xAI's endpoints leave the model's reasoning out of it,
    and charge for it as for output."""
    return total - given if _is_count(total) and total > given + made else made


def _is_count(value: Any) -> TypeGuard[int]:
    return type(value) is int and 0 <= value <= _MOST_TOKENS


def _rest(usage: dict[str, Any]) -> int | None:
    """The output of an embedding, which names none: nothing, if the total says so too."""
    return 0 if usage.get("total_tokens", usage["prompt_tokens"]) == usage["prompt_tokens"] else None


def _part(details: Any, name: str, whole: int) -> int:
    part = details.get(name) if is_object(details) else 0
    return part if type(part) is int and 0 <= part <= whole else 0
