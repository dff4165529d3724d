"""Requests as lines of a batch: spelled as the provider does, and marked for the prompt cache of its batches.

Lines are worked on side by side in any order, so it is not known which one is first: each marks what all rows share, and those
that start before it is written write it as well. What single documents share is not marked, since a provider may work on
their lines all at once.
"""

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
    """Makes the requests of a plan ready for a batch; `tell` says what a provider does not take."""

    def __init__(self, plan: Plan, tell: Callable[[str], None] | None = None) -> None:
        self._spelling = spelling_of(plan, prompt_of(plan))
        self._tell = tell
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
        """The request as a line has it."""
        if self._marks and self._caching is not None and request.body.startswith(self._fixed):
            request = request._replace(body=self._marked(request, self._caching))
        return request if self._spelling is None else self._spelling.apply(request)

    def _marked(self, request: Request, caching: Caching) -> bytes:
        body = request.body
        if caching.mark and self._fixed and caching.is_kept(len(self._fixed)):
            body = prompts.marked(body, [len(self._fixed)], caching.mark, request.endpoint)
        return prompts.with_members(body, self._members) if self._members else body

    def heard(self, judged: Judged) -> Judged:
        """What came back for a line; where that refuses a member that was added, its meaning says so, and later lines have
        none of them."""
        answer = judged.answer
        if self._caching is None or answer.status not in NOT_TAKEN:
            return judged
        name = refused_member(answer, self._caching.names, marked=bool(self._caching.mark))
        if name is None:
            return judged
        if self._marks and self._tell is not None:
            self._tell(f"the provider does not take {name} in batches: later ones have no marks for its prompt cache")
        self._marks = False
        return judged._replace(answer=answer._replace(meaning=Meaning.ADDED))
