"""Requests as lines of a batch, with the provider's parameter names and prompt cache marks."""

from collections.abc import Callable

from batchrun import prompts
from batchrun.engine.judge import Judged
from batchrun.engine.sending import NOT_TAKEN, refused_member
from batchrun.models import Request
from batchrun.plan import Plan
from batchrun.plan.rendering import prompt_of, sharing_of, spelling_of
from batchrun.prompts import Caching
from batchrun.retry import Meaning


class BatchLines:
    def __init__(self, plan: Plan, notify: Callable[[str], None] | None = None) -> None:
        self._spelling = spelling_of(plan, prompt_of(plan))
        self._notify = notify
        self._caching: Caching | None = None
        self._fixed, self._members, self._marks = b"", "", True
        if (found := sharing_of(plan, prompt_of(plan), batch=True)) is not None:
            renderer, self._caching = found
            self._fixed = renderer.fixed
            kept = self._fixed and self._caching.is_kept(len(self._fixed))
            key = "" if self._caching.key is None or not kept else prompts.key_member(self._caching.key, self._fixed)
            self._members = ",".join(filter(None, (key, self._caching.options)))
            if not (self._members or (kept and self._caching.mark)):
                self._caching = None  # nothing is added to any line

    def line(self, request: Request) -> Request:
        if self._marks and self._caching is not None and request.body.startswith(self._fixed):
            request = request._replace(body=self._marked(request, self._caching))
        return request if self._spelling is None else self._spelling.apply(request)

    def _marked(self, request: Request, caching: Caching) -> bytes:
        body = request.body
        if caching.mark and self._fixed and caching.is_kept(len(self._fixed)):
            body = prompts.marked(body, [len(self._fixed)], caching.mark, request.endpoint)
        return prompts.with_members(body, self._members) if self._members else body

    def receive(self, judged: Judged) -> Judged:
        """Check an answer; if it refuses an added member, later lines have none."""
        answer = judged.answer
        if self._caching is None or answer.status not in NOT_TAKEN:
            return judged
        name = refused_member(answer, self._caching.names, marked=bool(self._caching.mark))
        if name is None:
            return judged
        if self._marks and self._notify is not None:
            self._notify(f"the provider does not accept {name} in batches: later ones have no prompt cache marks")
        self._marks = False
        return judged._replace(answer=answer._replace(meaning=Meaning.ADDED))
