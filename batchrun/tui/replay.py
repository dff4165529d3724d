"""A run of another process, read from its journal and steered through its socket."""

import asyncio
import time
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from batchrun import registry, steering
from batchrun.errors import RefusedError, StorageError
from batchrun.events import LimitsChanged, RunStarted, Waiting, WaitReason
from batchrun.journal import Reader, Sample, Session, TierShare
from batchrun.models import Totals
from batchrun.plan import Plan, plan_from_json
from batchrun.pricing import STANDARD
from batchrun.progress import Fold, Mark, Progress, Recorded
from batchrun.registry import RunFile
from batchrun.report import words
from batchrun.report.row_text import title_of
from batchrun.tui.services import Bounds, Phase, Point, RunSnapshot, Trouble

POINTS = 240
_NOTHING = Progress(causes={})
_PHASES = {"running": Phase.RUNNING, "paused": Phase.PAUSED, "stopping": Phase.STOPPING}


class Replay:
    def __init__(self, run: RunFile) -> None:
        self.run = run
        self._plan: Plan | None = None
        self._requests: set[asyncio.Future[None]] = set()
        self._snapshot = RunSnapshot(
            phase=Phase.ENDED, progress=_NOTHING, title=run.id, reference=run.reference, journal=run.path
        )

    def snapshot(self) -> RunSnapshot:
        return self._snapshot

    def read_again(self) -> bool:
        try:
            snapshot = self._read()
        except StorageError as error:
            snapshot = RunSnapshot(
                phase=Phase.REFUSED,
                progress=_NOTHING,
                title=self.run.id,
                reference=self.run.reference,
                trouble=Trouble(error.message, error.hint),
            )
        self._snapshot = snapshot if snapshot.foreign is None else self._steered(snapshot, {"command": "status"})
        return snapshot.foreign is not None

    def _steered(self, snapshot: RunSnapshot, request: dict[str, Any]) -> RunSnapshot:
        # without a socket the snapshot has no bounds
        try:
            status = steering.send(self.run.path, request)
        except RefusedError:
            return replace(snapshot, bounds=None)
        bounds = Bounds(status["concurrency"], status["rpm"], status["tpm"])
        return replace(snapshot, phase=_PHASES[status["state"]], bounds=bounds)

    def _steer(self, command: str, **values: Any) -> None:
        def performed() -> None:
            self._snapshot = self._steered(self._snapshot, {"command": command, **values})

        request = asyncio.get_running_loop().run_in_executor(None, performed)
        self._requests.add(request)
        request.add_done_callback(self._requests.discard)

    def pause(self) -> None:
        self._steer("pause")

    def resume(self) -> None:
        self._steer("resume")

    def bound(self, bounds: Bounds) -> None:
        self._steer("limits", concurrency=bounds.cap, rpm=bounds.rpm, tpm=bounds.tpm)

    def drain(self) -> None:
        self._steer("stop")

    def abandon(self) -> None:
        self._steer("stop-now")

    def _read(self) -> RunSnapshot:
        summary = registry.summary(self.run)
        with Reader.open(self.run.path) as reader:
            self._plan = self._plan or plan_from_json(reader.meta.plan)
            samples = reader.samples()
            causes = reader.failures()
            alive = summary.running is not None
            tiers = [] if alive else reader.tiers()  # all attempts are read for it
            recording = Recording(self._plan, reader.totals, reader.sessions, samples, causes, tiers)
        points = points_of(samples)
        return RunSnapshot(
            phase=Phase.RUNNING if alive else Phase.ENDED,
            progress=progress_of(self.run, recording, alive=alive),
            title=title_of(self._plan),
            reference=self.run.reference,
            journal=self.run.path,
            history=points,
            foreign=summary.running,
            state=None if alive else words.state_of(summary),
        )


class Recording(NamedTuple):
    plan: Plan
    totals: Totals
    sessions: Sequence[Session]
    samples: Sequence[Sample]
    causes: dict[str, int]
    tiers: Sequence[TierShare]


def progress_of(run: RunFile, recording: Recording, *, alive: bool) -> Progress:
    """Times are Unix seconds."""
    plan, totals, sessions, samples, causes, tiers = recording
    state: dict[str, Any] = samples[-1].state if samples and alive else {}
    now = run.meta.created if not sessions else sessions[-1].ended or sessions[-1].started
    if alive:
        now = time.time()
    host = plan.base_url if not plan.simulated else "the simulated provider"
    started = sessions[-1].started if sessions else now
    in_flight = int(state.get("in_flight", 0))
    shares = {share.tier: (share.replies, share.cost) for share in tiers if share.tier != STANDARD}
    fold, marks = Fold(), [Mark(point.at, point.rows, point.tokens) for point in points_of(samples)]
    fold(RunStarted(run.id, Totals(rows=totals.rows), host, plan.model or "", plan.simulated, started))
    retries = retry_counts(sessions, samples, totals, in_flight)
    fold(Recorded(totals, alive, in_flight, *retries, causes, shares, marks if alive else marks[:1]))
    for event in (_waiting(state, now), _limits(state, now)):
        if event is not None:
            fold(event)
    return fold.snapshot(now)


def retry_counts(
    sessions: Sequence[Session], samples: Sequence[Sample], totals: Totals, in_flight: int
) -> tuple[int, int]:
    # sums of the last samples of sessions; old journals have only one number
    starts = [session.started for session in sessions]
    last = {bisect_right(starts, sample.at): sample for sample in samples}
    states: list[dict[str, Any]] = [sample.state for sample in last.values()]
    if not any("retries" in state for state in states):
        return max(0, totals.attempts - totals.done - totals.failed - in_flight), 0
    retries, throttled = (sum(int(state.get(name, 0)) for state in states) for name in ("retries", "throttled"))
    return retries, throttled


def points_of(samples: Sequence[Sample]) -> tuple[Point, ...]:
    step = max(1, len(samples) // POINTS)
    counts = [
        [int(sample.state.get(name, 0)) for name in ("done", "failed", "input_tokens", "output_tokens")]
        for sample in samples[::step]
    ]
    return tuple(
        Point(sample.at, done + failed, read + written)
        for sample, (done, failed, read, written) in zip(samples[::step], counts, strict=True)
    )


def _waiting(state: dict[str, Any], now: float) -> Waiting | None:
    reason = state.get("waiting")
    return Waiting(WaitReason(reason), None, now) if reason in set(WaitReason) else None


def _limits(state: dict[str, Any], now: float) -> LimitsChanged | None:
    if "allowed" not in state:
        return None
    allowed = int(state["allowed"])
    rates = state.get("rpm"), state.get("tpm")
    return LimitsChanged(int(state.get("in_flight", 0)), allowed, allowed, *rates, None, None, blocked_by=None, at=now)
