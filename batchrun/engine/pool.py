"""The lanes of a run, and which of them a row goes to. One loop, no threads."""

from collections.abc import Sequence
from dataclasses import replace

from batchrun.engine.lane import Lane, Member
from batchrun.events import Emit, Going, Waiting, WaitReason
from batchrun.journal import Journal
from batchrun.limits import Gate, GateView, Limits

_SAID_BY_THE_PROVIDER = frozenset(
    {WaitReason.THROTTLED, WaitReason.DOWN, WaitReason.LOADING, WaitReason.DOUBT, WaitReason.QUOTA}
)


def limits_of(member: Member) -> Limits:
    """The limits that the plan of a member sets."""
    plan = member.plan
    return Limits(plan.concurrency, plan.concurrency_fixed, plan.rpm, plan.tpm)


class Pool:
    """The lanes of a run. `emit` hears when nothing can leave, and why."""

    def __init__(self, members: Sequence[Member], journal: Journal, *, emit: Emit) -> None:
        self._emit = emit
        self._journal = journal
        self.limits = limits_of(members[0])
        self.lanes = tuple(self._lane(member) for member in members)
        self.first = self.lanes[0]
        self.only = self.first
        """The lane of a run with one."""

    def _lane(self, member: Member) -> Lane:
        gate = Gate(limits_of(member), listen=lambda event: self._tell(lane, event))
        lane = Lane(
            member,
            gate,
            emit=self._emit,
            rows_left=lambda: self._journal.totals.pending,
            fitted=self._journal.totals.done > 0,
        )
        return lane

    async def lane_for(self, job: object) -> Lane:
        """The lane that a row is sent to next."""
        return self.only

    @property
    def workers(self) -> int:
        """How many rows are handled at once at most: twice the cap. While one half is in flight, the other stands ready."""
        return 2 * self.limits.cap

    def close(self, *, recall: bool) -> None:
        """Let nothing more leave; `recall` as for `Gate.close`."""
        for lane in self.lanes:
            lane.gate.close(recall=recall)
            lane.sending.close()

    def pause(self) -> None:
        """Let nothing leave until `resume`."""
        for lane in self.lanes:
            lane.gate.pause()

    def resume(self) -> None:
        """Let requests leave again."""
        for lane in self.lanes:
            lane.gate.resume()

    def change(self, limits: Limits) -> None:
        """Hold each lane to other limits from now on."""
        self.limits = limits
        for lane in self.lanes:
            lane.gate.change(limits)

    def view(self) -> GateView:
        """The gates of all lanes now, as one."""
        return self.only.gate.view()

    @property
    def stated(self) -> tuple[float | None, float | None]:
        """Requests and tokens per minute that the user or the providers have stated; None where not all have."""
        return self.only.gate.stated

    def keep_learned(self) -> None:
        """Keep what the lanes have learned for the next session."""
        if self._journal.totals.replies:
            for lane in self.lanes:
                if lane.record is not None and (learned := lane.news()) is not None:
                    self._journal.learn(lane.record.id, learned)

    def _tell(self, lane: Lane, event: Waiting | Going) -> None:
        """What a gate tells, with the sentence of the provider where that is why it holds requests back."""
        if isinstance(event, Waiting) and event.reason in _SAID_BY_THE_PROVIDER:
            event = replace(event, said=lane.said)
        self._emit(event)
