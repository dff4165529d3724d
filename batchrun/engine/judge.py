"""Interprets one exchange for the gate, `retry.decide` and the journal. Pure."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jiter import from_json

from batchrun import limits, replies, retry
from batchrun.journal import End
from batchrun.limits import Feedback, Hints, Throttle
from batchrun.models import Bill, Defect, Endpoint, Exchange, Fault, Flag, Outcome, Reply, Request, State, Usage, made
from batchrun.prompts.request import prompts_in
from batchrun.replies import ReplyChecker
from batchrun.retry import Answer, Meaning, Meanings, Refusal, Tries

Mask = Callable[[str], str]

# Meanings that use no attempt, beside 429s
_UNCOUNTED = frozenset({Meaning.LOADING, Meaning.NO_CAPACITY, Meaning.ADDED})
EXCERPT = 2000  # Characters kept of a body that is no reply


class Charge(NamedTuple):
    cost: int | None  # Picodollars (None: unknown)
    tokens: int
    bill: Bill | None = None


class Judged(NamedTuple):
    answer: Answer
    reply: Reply | None
    usage: Usage | None
    hints: Hints
    value: str | None  # JSON, where a schema gives the reply a value of its own


def judge(request: Request, exchange: Exchange, checker: ReplyChecker | None, meanings: Meanings, mask: Mask) -> Judged:
    """An error in place of a reply is judged by its code as a status. `mask` removes secrets."""
    status = exchange.status
    hints = limits.hints(exchange.headers, status, exchange.body)
    if not 200 <= status < 300:
        answer = _failed(request, exchange, hints, meanings, mask)
        if answer.meaning is Meaning.NEVER_FITS:  # of no other request either is anything refused
            hints = hints._replace(looks_like_429=False)
        return Judged(answer, None, None, hints, None)
    judged = judge_body(request, exchange.body, checker, hints, exchange.left)
    answer = judged.answer
    if answer.defect is None:
        return judged
    status = replies.error_within(exchange.body)
    if status is None:
        return judged._replace(answer=answer._replace(defect=mask(answer.defect), message=mask(answer.message)))
    hints = limits.hints(exchange.headers, status or 400, exchange.body)
    failed = _failed(request, exchange._replace(status=status or 400), hints, meanings, mask)
    return judged._replace(answer=failed if status else failed._replace(status=200, defect=replies.ERROR), hints=hints)


def judge_body(  # noqa: PLR0913  a body, and what is known around it
    request: Request,
    body: bytes | str,
    checker: ReplyChecker | None,
    hints: Hints = limits.NO_HINTS,
    left: float = 0.0,
    *,
    data: Any = None,
) -> Judged:
    """The same for a 200; `data` is its JSON if parsed."""
    reply = replies.read(request.endpoint, body, request.output_limit, inputs_of(request), data)
    if isinstance(reply, Defect):
        reason, _, detail = reply.reason.partition(": ")  # a detail may be another one each time
        html = reason == replies.HTML
        answer = Answer(200, defect=reason, message=detail, html=html, left=left, unreadable=reply.unreadable)
        return Judged(answer, None, reply.usage, hints, None)
    if not reply.flags:  # nearly every reply
        if checker is None:
            return made(Judged, (retry.plain(left), reply, reply.usage, hints, None))
        complaint, check, value = replies.checked(checker, reply.text or "")
        flags = checker.flags if complaint is None else frozenset[Flag]()
        answer = Answer(200, complaint=complaint, check=check, flags=flags, left=left)
        return Judged(answer, reply, reply.usage, hints, value)
    empty = Flag.EMPTY in reply.flags
    complaint = check = value = None
    if empty:
        paid = "no tokens stated" if reply.usage is None else f"{reply.usage.output:,} tokens out"
        complaint = f"{paid}, only {reply.thinking}" if reply.thinking else f"{paid}, no text"
    elif checker is not None:
        complaint, check, value = replies.checked(checker, reply.text or "")
    checked, limited = checker is not None, bool(request.output_limit)
    answer = Answer(
        200, complaint=complaint, check=check, flags=reply.flags, left=left, checked=checked, limited=limited
    )
    return Judged(answer, reply, reply.usage, hints, value)


def inputs_of(request: Request) -> int:
    return (
        prompts_in(from_json(bytes(request.body))) if request.endpoint is Endpoint.COMPLETIONS and request.body else 1
    )


def _failed(request: Request, exchange: Exchange, hints: Hints, meanings: Meanings, mask: Mask) -> Answer:
    if exchange.fault is not None:
        unreadable = exchange.fault in (Fault.ENCODING, Fault.PROTOCOL)
        return Answer(
            0, exchange.fault, exchange.sent, message=exchange.detail, left=exchange.left, unreadable=unreadable
        )
    error = replies.error_of(exchange.status, exchange.headers, exchange.body)
    text = f"{error.message}\n{error.details}"
    refusal = Refusal(exchange.status, error.type, error.code, text, exchange.headers, request.body)
    return Answer(
        exchange.status,
        type=mask(error.type),
        code=mask(error.code),
        message=" ".join(mask(error.message).split()),
        meaning=meanings.of(refusal),
        param=error.param,
        endpoint=request.endpoint,
        html=exchange.body[:512].lstrip().startswith(b"<"),
        retry_after=hints.retry_after,
        left=exchange.left,
        disguised=hints.looks_like_429 and exchange.status != 429,
    )


def feedback(judged: Judged, body_bytes: int) -> Feedback:
    answer, reply, usage, hints, _ = judged
    if reply is not None:
        return made(Feedback, (hints, None, False, usage, body_bytes))
    return Feedback(hints, throttle_of(answer) if answer.throttled else None, answer.down, usage, body_bytes)


def throttle_of(answer: Answer) -> Throttle:
    text = f"{answer.type} {answer.code} {answer.message}".lower()
    if answer.meaning is Meaning.CONCURRENCY:
        return Throttle.CONCURRENCY
    if answer.type == "requests" or "requests per" in text or "(rpm)" in text:
        return Throttle.REQUESTS
    if answer.type == "tokens" or "tokens per" in text or "(tpm)" in text:
        return Throttle.TOKENS
    return Throttle.UNKNOWN


def end_of(judged: Judged, exchange: Exchange, verdict: retry.Verdict, mask: Mask, charge: Charge) -> End:
    answer, seconds = judged.answer, exchange.ended - exchange.left
    request_id, (cost, tokens, bill) = exchange.headers.get("x-request-id"), charge
    accepted = isinstance(verdict, retry.Done)
    if accepted and answer.complaint is None and judged.reply is not None:  # nearly every one
        usage = judged.usage
        return made(
            End,
            (200, seconds, None, None, False, True, False, False, False, usage, request_id, None, cost, tokens, bill),
        )
    return End(
        answer.status,
        seconds,
        None if accepted else answer.cause,
        answer.complaint or answer.message or None,
        throttled=answer.throttled,
        counted=verdict.counts if isinstance(verdict, retry.RetryIn) else not isinstance(verdict, retry.StopRun),
        deadline=answer.fault is Fault.DEADLINE,
        invalid=answer.complaint is not None or isinstance(verdict, retry.AskAgain),
        possibly_billed=answer.possibly_billed,
        usage=judged.usage,
        request_id=request_id,
        excerpt=None if answer.accepted else mask(exchange.body[:EXCERPT].decode("utf-8", "backslashreplace")),
        cost=cost,
        charged_tokens=tokens,
        bill=bill,
    )


def counted(attempts: int, deadlines: int, asks: int, answer: Answer) -> Tries:
    asked = answer.complaint is not None or Flag.TRUNCATED in answer.flags
    if answer.accepted:
        return made(Tries, (attempts + 1, deadlines, asks + asked))
    return Tries(
        attempts + (not answer.throttled and answer.meaning not in _UNCOUNTED),
        deadlines + (answer.fault is Fault.DEADLINE),
        asks + (asked or answer.misfit),
    )


def failure(verdict: retry.GiveUp) -> Outcome:
    return Outcome(State.FAILED, verdict.permanent, verdict.cause, verdict.message, frozenset(), None)
