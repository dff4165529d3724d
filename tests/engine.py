"""A run over a real journal with a provider that answers as a script says: no network, no waiting.

`Provider` stands in the place of the client; an answer is a function of the request's prompt that gives an `Exchange`.
`Stage` is a journal with its rows; `Stage.play` runs it and returns how it ended and every event.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson

from batchrun.client import Client
from batchrun.client.senders.hub import Hub
from batchrun.engine.batches import Batching
from batchrun.engine.lane import Member
from batchrun.engine.run import Run
from batchrun.engine.run_result import RunResult
from batchrun.engine.selection import selection
from batchrun.engine.start import checker_of, renderer_of
from batchrun.events import AttemptEnded, AttemptStarted, Draining, Event, Notice, RowFinished, RowLost, single
from batchrun.journal import IntakeRow, Journal, Meta, Reader, Record
from batchrun.models import Endpoint, Exchange, Fault, Flag, Kind, Request, State, Totals
from batchrun.plan import Plan, plan_to_json
from batchrun.plan.pools import lane_plans
from batchrun.plan.rendering import prompt_of

PROMPT = "{{ text }}"
WITH_SCHEMA = """---
name: scores
outputs: {type: object, properties: {score: {type: integer}}, required: [score], additionalProperties: false}
---
{{ text }}
"""
PLAN = Plan(
    kind=Kind.ROWS,
    input="in.jsonl",
    input_format="jsonl",
    id_column="id",
    prompt_name="p",
    prompt_path="p.md",
    prompt_source=PROMPT,
    endpoint=Endpoint.CHAT,
    model="m",
    output="out.jsonl",
    output_format="jsonl",
    output_column="output",
    profile="own",
    base_url="http://127.0.0.1:1/v1",
    dialect="openai",
    api_key_env=None,
    concurrency=4,
)

Answer = Callable[[str], Exchange]
Talk = Callable[[str], Awaitable[Exchange]]


def exchange(
    status: int,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    *,
    fault: Fault | None = None,
    sent: bool = True,
) -> Exchange:
    now = asyncio.get_running_loop().time()
    return Exchange(status, headers or {}, body, now, now, fault, str(fault or ""), sent)


def reply_body(text: str | None, finish: str = "stop", **message: Any) -> bytes:
    said = {"role": "assistant", "content": text, **message}
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    return orjson.dumps(
        {"id": "x", "choices": [{"index": 0, "message": said, "finish_reason": finish}], "usage": usage}
    )


def ok(text: str | None = None, finish: str = "stop") -> Answer:
    """A reply: `text`, or the prompt in capitals."""
    return lambda prompt: exchange(200, reply_body(text or prompt.upper(), finish), {"x-request-id": "req_1"})


def status(code: int, error: str = "", headers: Mapping[str, str] | None = None, **members: Any) -> Answer:
    body = orjson.dumps({"error": {"message": f"said {code}", "type": error, "code": error or None, **members}})
    return lambda prompt: exchange(code, body, headers)


def fault(kind: Fault, *, sent: bool = True) -> Answer:
    return lambda prompt: exchange(0, fault=kind, sent=sent)


def garbage(body: bytes) -> Answer:
    return lambda prompt: exchange(200, body)


@dataclass
class Provider:
    """Answers each prompt with its own script, whose last answer stays, or with `usual`.

    A `gate` that is set holds every answer back until it is opened; `peak` is the most that were in flight at once.
    """

    scripts: dict[str, Sequence[Answer]] = field(default_factory=dict[str, Sequence[Answer]])
    usual: Answer = field(default_factory=ok)
    hold: asyncio.Event | None = None
    calls: list[str] = field(default_factory=list[str])
    bodies: list[Any] = field(default_factory=list[Any])
    peak: int = 0
    _open: int = 0

    async def send(self, request: Request, *, timeout: float) -> Exchange:  # noqa: ASYNC109  as the client's
        prompt = orjson.loads(request.body)["messages"][0]["content"]
        script = self.scripts.get(prompt, [self.usual])
        answer = script[min(self.counts[prompt], len(script) - 1)]
        self.calls.append(prompt)
        self.bodies.append(orjson.loads(request.body))
        self._open += 1
        self.peak = max(self.peak, self._open)
        try:
            await asyncio.sleep(0)
            if self.hold is not None:
                await self.hold.wait()
            return answer(prompt)
        finally:
            self._open -= 1

    def renew(self) -> None:
        """There are no connections."""

    def space(self, spaced: Callable[[], bool]) -> None:
        """There is no distance to keep."""

    def end(self, *, before: float) -> int:
        """Nothing is ended."""
        return 0

    async def reachable(self, *, seconds: float) -> bool:
        return True

    @staticmethod
    def mask(text: str) -> str:
        """There is no secret to mask."""
        return text

    @property
    def counts(self) -> Counter[str]:
        """Calls per prompt."""
        return Counter(self.calls)


@dataclass
class Story:
    """How a run ended and everything it told."""

    ending: RunResult
    events: list[Event]

    @property
    def told(self) -> list[str]:
        """The events of rows and attempts in few words."""
        return [words for event in self.events if (words := in_words(event))]

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


def in_words(event: Event) -> str:  # noqa: PLR0911  a table
    match event:
        case AttemptStarted():
            return f"row {event.seq} attempt {event.number}"
        case AttemptEnded():
            return f"row {event.seq} got {event.cause or 'a reply'}{', again' if event.retry else ''}"
        case RowFinished():
            return f"row {event.seq} {event.outcome.state}"
        case RowLost():
            return f"row {event.seq} lost"
        case Draining():
            return "draining"
        case Notice():
            return event.message
        case _:
            return ""


def ingested(line: int, text: str) -> IntakeRow:
    """The row of this line as intake hands it to the journal."""
    return IntakeRow(line, f"id-{line}", f"request of {text}", f'{{"id": "id-{line}", "text": "{text}"}}')


class Stage:
    """A journal with rows `row 1` …, or with these texts, and a plan. Rows of the same text have equal requests."""

    def __init__(
        self,
        directory: Path,
        rows: int | Sequence[str] = 1,
        *,
        faults: Callable[[int], None] | None = None,
        run: str = "r1",
        **plan: Any,
    ) -> None:
        path = "p.prompty" if plan.get("prompt_source") == WITH_SCHEMA else "p.md"
        self.plan = replace(PLAN, **{"prompt_path": path, **plan})
        self.path = directory / ".batchrun" / f"{run}.db"
        self.faults = faults
        meta = Meta(
            run=run,
            created=1.0,
            plan=plan_to_json(self.plan),
            prompt=self.plan.prompt_source,
            simulated=False,
            output="../out.jsonl",
        )
        journal = Journal.create(self.path, meta)
        texts = [f"row {n}" for n in range(1, rows + 1)] if isinstance(rows, int) else rows
        journal.ingest(map(ingested, range(1, len(texts) + 1), texts))
        journal.close()

    async def play(
        self,
        provider: Provider | Client | Mapping[str, Provider],
        *,
        during: Callable[[Run], Awaitable[None]] | None = None,
        hear: Callable[[Event, Run], None] | None = None,
        batching: Batching | None = None,
        instead: Mapping[str, tuple[bytes, bytes]] | None = None,
        hub: Hub | None = None,
        **plan: Any,
    ) -> Story:
        """One session; `during` runs beside it, `hear` gets every event, `batching` is for runs with batches.

        Several providers by name are the lanes of a pool; `instead` is how a lane spells the beginning of bodies, `hub`
        has the senders.
        """
        wanted = replace(self.plan, **plan)
        prompt = prompt_of(wanted)
        events: list[Event] = []
        runs: list[Run] = []

        def emit(event: Event) -> None:
            for each in single(event):
                events.append(each)
                if hear is not None:
                    hear(each, runs[0])

        journal = Journal.open(self.path, faults=self.faults)
        journal.pair(dedupe=wanted.dedupe, wanted=selection(wanted, journal.totals.rows))
        members = [replace(member, hub=hub) for member in self._members(journal, wanted, provider, instead or {})]
        journal.start()
        try:
            parts = wanted, journal, members, renderer_of(wanted, prompt)
            run = Run(*parts, checker=checker_of(wanted, prompt), emit=emit, batching=batching)
            runs.append(run)
            beside = asyncio.ensure_future(during(run)) if during is not None else None
            ending = await run.run()
            if beside is not None:
                await beside
        finally:
            journal.close(0)
        return Story(ending, events)

    def _members(
        self, journal: Journal, plan: Plan, provider: Any, instead: Mapping[str, tuple[bytes, bytes]]
    ) -> list[Member]:
        if not isinstance(provider, Mapping):
            one = plan.base_url, plan.api_key_env, plan.model
            lane = None if self.faults else journal.lane(*one)  # `faults` counts the commits of the run alone
            return [Member(plan, provider, lane)]
        members: list[Member] = []
        for lane in lane_plans(plan):
            own = lane.plan
            record = journal.lane(own.base_url, own.api_key_env, own.model)
            spelled = instead.get(lane.name)
            members.append(
                Member(own, provider[lane.name], record, lane.name, lane.quota, instead=spelled, fallback=lane.fallback)
            )
        return members

    @property
    def totals(self) -> Totals:
        with Reader.open(self.path) as reader:
            assert reader.check() == []
            return reader.totals

    @property
    def records(self) -> list[Record]:
        with Reader.open(self.path) as reader:
            return list(reader.export_rows())

    @property
    def states(self) -> list[str]:
        return [str(record.state) for record in self.records]


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that will come about; the test's own time limit ends it otherwise."""
    while not condition():  # noqa: ASYNC110  the condition is the run's, which knows of no event
        await asyncio.sleep(0.001)


__all__ = ["PLAN", "PROMPT", "WITH_SCHEMA", "Flag", "Provider", "Stage", "State", "Story", "until"]
