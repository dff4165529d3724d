"""What is added when a request is sent, and answers about it. An added member that is refused is left out for the rest
of the run.
"""

import asyncio
from collections.abc import Callable, Iterable

from batchrun import prompts
from batchrun.engine.judge import Judged
from batchrun.engine.pending_queue import RowState
from batchrun.engine.prefixes import Groups, Prefix
from batchrun.engine.tiers import Tiers
from batchrun.events import Emit, Notice
from batchrun.models import Request
from batchrun.plan import Plan
from batchrun.plan.rendering import prompt_of, sharing_of, spelling_of
from batchrun.prompts import Caching
from batchrun.retry import Answer, Meaning

_CONTENT = "content"  # What a server names that accepts no text blocks
_TIER = "service_tier"
NOT_TAKEN = (400, 422)


def groups_of(plan: Plan) -> Groups | None:
    """None where no two rows can share a prefix."""
    found = sharing_of(plan, prompt_of(plan))
    return None if found is None or found[0].variables < 2 else Groups(*found)


def refused_member(answer: Answer, added: Iterable[str], *, marked: bool) -> str | None:
    """If `marked`, maybe its text blocks."""
    text = f"{answer.param} {answer.message}"
    named = next((name for name in sorted(added) if name in text), None)
    return _CONTENT if named is None and marked and _CONTENT in answer.param else named


class Sending:
    def __init__(self, plan: Plan, *, emit: Emit, rows_left: Callable[[], int], as_rendered: bool = True) -> None:
        self.tiers = Tiers(plan, emit=emit, rows_left=rows_left)
        self._plan = plan
        self._emit = emit
        self._rows_left = rows_left  # Not in progress
        self._as_rendered = as_rendered  # Prefixes end where they did when rendered
        self._loop = asyncio.get_running_loop()
        self._spelling = spelling_of(plan, prompt_of(plan))
        self._caching: Caching | None = None
        self._marks_all = False  # whether every request is changed for a prompt cache, not only those that share more
        self._fixed, self._members = b"", ""
        self._prefix: Prefix | None = None
        if (found := sharing_of(plan, prompt_of(plan))) is not None:
            renderer, caching = found
            self._caching, self._fixed = caching, renderer.fixed
            if self._fixed and caching.is_kept(len(self._fixed)):
                self._prefix = Prefix(b"", len(self._fixed), caching.seconds)
                self._members = "" if caching.key is None else prompts.key_member(caching.key, self._fixed)
            self._members = ",".join(filter(None, (self._members, caching.options)))
            self._marks_all = self._prefix is not None or bool(self._members)

    def sent(self, state: RowState, request: Request) -> Request:
        if state.marks or state.added:
            state.marks, state.added = (), frozenset()
        if self._caching is not None and (self._marks_all or state.shared):
            request = self._cached(state, request, self._caching)
        if self._spelling is not None:
            request = self._spelling.apply(request)
        if state.tier is None:
            return request
        members = self.tiers.known[state.tier].members
        if members and f'"{_TIER}"'.encode() not in bytes(request.body):
            request = request._replace(body=prompts.with_members(bytes(request.body), members))
        return request

    def sent_in_page(self, request: Request) -> Request | None:
        """None where more than names of parameters may change."""
        if self.tiers.known or (self._caching is not None and self._marks_all):
            return None
        return request if self._spelling is None else self._spelling.apply(request)

    def _cached(self, state: RowState, request: Request, caching: Caching) -> Request:
        body, members = bytes(request.body), self._members
        if not body.startswith(self._fixed):
            return request
        now = self._loop.time()
        shared = (
            () if state.asks or not self._as_rendered else state.shared
        )  # a corrected request is rendered anew: its prefixes may end elsewhere
        of_all = () if self._prefix is None else (self._prefix,)
        more = self._rows_left() > 0  # no cache is written that no later row can read
        state.marks = tuple(prefix for prefix in (*of_all, *shared) if prefix.is_for(state, now, more=more))
        for prefix in state.marks:
            prefix.marked(state, now)
        if caching.mark and state.marks:
            body = prompts.marked(body, [prefix.end for prefix in state.marks], caching.mark, request.endpoint)
        if caching.key is not None and self._prefix is None and shared:
            members = ",".join(filter(None, (prompts.key_member(caching.key, shared[0].digest), members)))
        if members:
            body = prompts.with_members(body, members)
        if body is request.body:
            return request
        added = f"{caching.mark},{members}" if state.marks else members
        state.added = frozenset(name for name in caching.names if name in added)
        return request._replace(body=body)

    def priced(self, state: RowState) -> str | None:
        return None if state.tier is None else self.tiers.known[state.tier].priced

    def timeout(self, state: RowState) -> float:
        """Seconds; slow tiers have more unless the user chose."""
        tier = None if state.tier is None else self.tiers.known[state.tier]
        if tier is None or self._plan.timeout_chosen:
            return self._plan.timeout
        return max(self._plan.timeout, tier.timeout)

    def receive(self, state: RowState, judged: Judged, seconds: float) -> Judged:
        answer = judged.answer
        for prefix in state.marks:
            prefix.ended(state, self._loop.time(), answered=answer.accepted)
        if state.tier is None and answer.accepted:
            return judged
        refused = refused_member(answer, state.added, marked=bool(state.marks)) if state.added else None
        if refused is not None and answer.status in NOT_TAKEN:
            self._leave_out(refused)
            answer = answer._replace(meaning=Meaning.ADDED)
        elif state.tier is not None and answer.status in NOT_TAKEN and _TIER in answer.param:
            answer = answer._replace(meaning=Meaning.NO_TIER)
        without = self.tiers.receive(state, answer, seconds)
        if answer.meaning is Meaning.NO_TIER and self.tiers.has_another(state):
            self.tiers.report_off(state)
            answer = answer._replace(meaning=Meaning.ADDED)
        elif answer.meaning is Meaning.NO_CAPACITY and without is None:
            answer = answer._replace(meaning=Meaning.RATE)  # no tier was chosen: all rows are in this one
        elif without is not None and not self.tiers.has_another(state):
            answer = answer._replace(waited=without)
        return judged if answer is judged.answer else judged._replace(answer=answer)

    def _leave_out(self, name: str) -> None:
        if self._caching is None:
            return  # requests already in flight
        self._caching = None
        message = f"the provider does not accept {name}: requests are sent without prompt cache marks"
        self._emit(Notice(message, self._loop.time()))

    def close(self) -> None:
        self.tiers.close()
