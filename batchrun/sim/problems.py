"""The error bodies of the simulated provider, in OpenAI's shape and words."""

from typing import NamedTuple

import orjson


class Answer(NamedTuple):
    """One HTTP answer: `headers` are whole lines, each with its end."""

    status: int
    body: bytes
    headers: str = ""
    kind: str = "application/json"


class Problem(NamedTuple):
    """Why a request is refused for its own fault."""

    status: int
    message: str
    param: str | None = None
    code: str | None = None


_BUSY = "The engine is currently overloaded, please try again later."
_TROUBLE = "The server had an error while processing your request. Sorry about that!"
_STATUSES: dict[int, tuple[str, str, str | None]] = {
    400: ("Invalid value for a parameter.", "invalid_request_error", "invalid_value"),
    401: ("You didn't provide an API key.", "invalid_request_error", None),
    402: ("Your balance is insufficient.", "billing_error", "insufficient_balance"),
    403: ("You are not allowed to sample from this model.", "invalid_request_error", "permission_denied"),
    404: ("The requested resource does not exist.", "invalid_request_error", "not_found"),
    408: ("The request timed out.", "timeout", "request_timeout"),
    409: ("The resource is being changed by another request.", "conflict", "conflict"),
    413: ("The request is too large.", "invalid_request_error", "request_too_large"),
    422: ("The request cannot be processed.", "invalid_request_error", "unprocessable"),
    429: ("Too many requests, please slow down.", "requests", "rate_limit_exceeded"),
    503: (_BUSY, "server_error", "overloaded"),
    529: (_BUSY, "overloaded_error", "overloaded"),
}
_HTML = "<html>\r\n<head><title>{0}</title></head>\r\n<body><center><h1>{0}</h1></center></body>\r\n</html>\r\n"


def error(status: int, message: str, kind: str, code: str | None = None, param: str | None = None) -> Answer:
    """An answer with OpenAI's error object."""
    inner = {"message": message, "type": kind, "param": param, "code": code}
    return Answer(status, orjson.dumps({"error": inner}, option=orjson.OPT_APPEND_NEWLINE))


def refusal(problem: Problem) -> Answer:
    """The answer to a request that is refused for its own fault."""
    return error(problem.status, problem.message, "invalid_request_error", problem.code, problem.param)


def of_status(status: int) -> Answer:
    """The usual answer of a status: HTML for 520 to 527, which a gateway says, JSON for all others."""
    if 520 <= status <= 527:
        return html(status, f"{status}: web server is returning an unknown error")
    message, kind, code = _STATUSES.get(status, (_TROUBLE, "server_error" if status >= 500 else "error", None))
    return error(status, message, kind, code)


def html(status: int, title: str) -> Answer:
    """A page for people, as a gateway or a wrong address gives it."""
    return Answer(status, _HTML.format(title).encode(), kind="text/html; charset=utf-8")


def wrong_key(authorization: str) -> Answer:
    """401 invalid_api_key; echoes a part of the key as OpenAI does."""
    key = authorization.removeprefix("Bearer ").strip()
    if not key:
        hint = "You need to provide your API key in an Authorization header using Bearer auth."
        return error(401, f"You didn't provide an API key. {hint}", "invalid_request_error")
    message = f"Incorrect API key provided: {masked(key)}. You can find your API key at https://platform.openai.com/account/api-keys."
    return error(401, message, "invalid_request_error", "invalid_api_key")


def masked(key: str) -> str:
    """The beginning and the last four characters of a key, stars between; less of a short one."""
    head, tail = (8, 4) if len(key) > 20 else (2, 2) if len(key) > 8 else (0, 0)
    return key[:head] + "*" * (len(key) - head - tail) + key[len(key) - tail :]


def no_quota() -> Answer:
    """429 insufficient_quota: the account is empty, no wait helps."""
    message = (
        "You exceeded your current quota, please check your plan and billing details. For more information on this "
        "error, read the docs: https://platform.openai.com/docs/guides/error-codes/api-errors."
    )
    return error(429, message, "insufficient_quota", "insufficient_quota")


def too_long(tokens: int) -> Answer:
    """400 context_length_exceeded."""
    message = (
        f"This model's maximum context length is {tokens - 1} tokens. However, your messages resulted in {tokens} "
        "tokens. Please reduce the length of the messages."
    )
    return error(400, message, "invalid_request_error", "context_length_exceeded", "messages")


def no_model(model: str) -> Answer:
    """404 model_not_found."""
    message = f"The model `{model}` does not exist or you do not have access to it."
    return error(404, message, "invalid_request_error", "model_not_found")


def too_many_at_once(model: str, limit: int) -> Answer:
    """429 for too many requests at once."""
    message = (
        f"Too many concurrent requests for {model} in organization org-simulated: Limit {limit}, Used {limit}, "
        "Requested 1. Please wait for a request to end."
    )
    return error(429, message, "concurrency", "rate_limit_exceeded")
