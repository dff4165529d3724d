"""Replies that come after their sender was given up: they answer rows that have no answer, and are paid again where they have."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from engine import Answer, Provider, Stage, exchange, fault, ok, reply_body, status

from batchrun.client.senders.exchanges import Lost
from batchrun.engine.run import Run
from batchrun.errors import ExitCode
from batchrun.events import Event, RowFinished
from batchrun.models import Exchange, Fault, State

REFUSED = status(400)


class Losing:
    """A sender that is lost with the first request, whose reply comes with `comes`."""

    def __init__(self) -> None:
        self.lost: Lost | None = None

    def first(self, _: str) -> Exchange:
        now = asyncio.get_running_loop().time()
        self.lost = Lost(0, {}, b"", now, now, Fault.LOST, "sender 1 was lost", True)
        return self.lost

    def comes(self, body: bytes = reply_body("LATE")) -> None:
        assert self.lost is not None
        assert self.lost.late is not None
        self.lost.late(exchange(200, body))

    def before(self, answer: Answer) -> Answer:
        """The reply comes while the second request is under way, which has this answer."""

        def answered(prompt: str) -> Exchange:
            self.comes()
            return answer(prompt)

        return answered


def texts(stage: Stage) -> list[str]:
    with closing(sqlite3.connect(stage.path)) as connection:
        found = connection.execute(
            "SELECT json_extract(replies.body, '$.choices[0].message.content') FROM outcomes JOIN replies ON replies.id = outcomes.reply"
        )
        return [text for (text,) in found]


def attempts(stage: Stage) -> list[tuple[str | None, int, int | None]]:
    with closing(sqlite3.connect(stage.path)) as connection:
        return connection.execute(
            "SELECT cause, possibly_billed, input_tokens FROM attempts ORDER BY number"
        ).fetchall()


@pytest.mark.looptime
@pytest.mark.parametrize("second", [status(500), REFUSED, fault(Fault.LOST)])
async def test_a_late_reply_answers_a_row_that_has_no_other(second: Answer, tmp_path: Path) -> None:
    losing, stage = Losing(), Stage(tmp_path, 1)
    provider = Provider({"row 1": [losing.first, losing.before(second)]})
    story = await stage.play(provider)
    assert story.ending.exit_code is ExitCode.OK
    assert len(provider.calls) == 2
    assert texts(stage) == ["LATE"]
    assert [(cause, billed) for cause, billed, _ in attempts(stage)][-1] == (None, 0)
    assert (stage.totals.done, stage.totals.attempts, stage.totals.replies) == (1, 2, 1)
    assert stage.totals.possibly_billed == (second is not REFUSED), "of the second request"


@pytest.mark.looptime
async def test_a_late_reply_to_a_row_that_is_answered_meanwhile_was_paid_again(tmp_path: Path) -> None:
    losing, stage = Losing(), Stage(tmp_path, 1)
    await stage.play(Provider({"row 1": [losing.first, losing.before(ok("OWN"))]}))
    assert texts(stage) == ["OWN"]
    assert attempts(stage) == [("paid again", 0, 7), (None, 0, 7)]
    assert (stage.totals.replies, stage.totals.possibly_billed, stage.totals.input_tokens) == (1, 0, 14)


@pytest.mark.looptime
async def test_a_late_reply_to_a_row_that_is_done_was_paid_again(tmp_path: Path) -> None:
    losing, stage = Losing(), Stage(tmp_path, 1)

    def hear(event: Event, _: Run) -> None:
        if isinstance(event, RowFinished):
            assert event.outcome.state is State.DONE
            losing.comes()

    await stage.play(Provider({"row 1": [losing.first, ok("OWN")]}), hear=hear)
    assert texts(stage) == ["OWN"]
    assert attempts(stage) == [("paid again", 0, 7), (None, 0, 7)]


@pytest.mark.looptime
async def test_what_comes_late_and_is_no_reply_changes_nothing(tmp_path: Path) -> None:
    losing, stage = Losing(), Stage(tmp_path, 1)

    def hear(event: Event, _: Run) -> None:
        if isinstance(event, RowFinished):
            losing.comes(b"<html>")

    await stage.play(Provider({"row 1": [losing.first, ok("OWN")]}), hear=hear)
    assert texts(stage) == ["OWN"]
    assert [(cause, billed) for cause, billed, _ in attempts(stage)] == [("its sender was lost", 1), (None, 0)]
