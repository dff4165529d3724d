"""The Python API: the same plan, journal, resume, limits and exit codes as the command, for rows in memory.

    import batchrun

    result = batchrun.run(rows, prompt="Is this spam? {{ text }}", model="gpt-5.4-mini", output="spam.jsonl")
    result.rows            # dictionaries, or a data frame if you passed one, with the new columns

    async with batchrun.open(rows, prompt="translate", variables={"language": "German"}) as run:
        async for outcome in run:
            ...

The rows are written to a file beside the journal. The same call again continues the run of its output: done rows are
not sent again.
"""

import asyncio
import contextlib
import dataclasses
import json
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self, cast

from batchrun import registry
from batchrun.client.event_loop import run_coroutine
from batchrun.engine.execute import execute
from batchrun.engine.export import additions
from batchrun.engine.output_files import replaced
from batchrun.engine.run import Run as EngineRun
from batchrun.engine.run_result import RunResult
from batchrun.engine.start import Prepared, prepare
from batchrun.errors import BatchrunError, ExitCode, RefusedError
from batchrun.events import Event, RowFinished, RunEnded, RunStarted, single
from batchrun.journal import Reader, Record
from batchrun.journal import prepare as prepare_directory
from batchrun.models import State, Totals
from batchrun.plan import Plan
from batchrun.plan.resolve import check_input, check_provider
from batchrun.plan.settings import Settings
from batchrun.plan.sources import gather
from batchrun.progress import Fold
from batchrun.prompts.definition import did_you_mean
from batchrun.report.headless import end_event
from batchrun.report.observers import Observers
from batchrun.report.words import account
from batchrun.rows.extras import plain

log = logging.getLogger(__name__)

Rows = Any  # a path, or rows: mappings, dataclasses or texts in any iterable, or a data frame of pandas or Polars

_TICK = 0.2  # seconds between updates of the progress bar


class Outcome(NamedTuple):
    """How one row ended.

    `row` is the input row, `output` the new columns of a done one. `state` is `done`, `failed` or `skipped`; the next
    call sends a failure again unless it is `permanent`. `cause` and `message` say why it failed. `flags` are any of
    truncated, refused, filtered, odd, empty, numbers. `line` counts rows from 1; `seconds` is the duration of the last
    request.
    """

    line: int
    row: dict[str, Any]
    output: dict[str, Any]
    state: str
    permanent: bool
    cause: str | None
    message: str | None
    flags: frozenset[str]
    attempts: int
    seconds: float | None


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Result:
    """The result of a run.

    `rows` are the done rows in input order with their new columns: dictionaries, or a data frame if one was passed.
    `outcomes` are all rows that have ended. `exit_code`: 0 every row done, 3 some failed, 4 fatal provider error, 6
    budget used up, 7 waiting for batches. `message` and `hint` say why it stopped and what to do. `cost` is in US
    dollars, None if no price is known. `output` is the file that was written, `run` the run's id.
    """

    rows: Any
    outcomes: list[Outcome]
    totals: Totals
    exit_code: ExitCode
    message: str | None
    hint: str | None
    cost: float | None
    output: Path
    run: str

    def __repr__(self) -> str:
        ended = "" if self.message is None else f", {self.message}"
        cost = "" if self.cost is None else f", ${self.cost:.4f}"
        return f"<batchrun.Result {self.run}: {account(self.totals)}{ended}{cost}, {self.output}>"

    @property
    def ok(self) -> bool:
        """Whether every row is done."""
        return self.exit_code is ExitCode.OK

    def check(self) -> Self:
        """Raises BatchrunError unless every row is done."""
        if not self.ok:
            message = self.message or f"{self.totals.failed} of {self.totals.rows} rows failed"
            raise BatchrunError(message, self.hint or "see `outcomes`, fix the cause, and call it again")
        return self


def run(
    rows: Rows,
    prompt: str | Path | None = None,
    *,
    model: str | None = None,
    output: str | Path | None = None,
    progress: bool = True,
    **options: Any,
) -> Result:
    """Run a prompt over rows and wait for the end; also works inside a running event loop, as in a notebook.

    `prompt` is a name, a path or a text. `options` are the command's by their names in `batchrun.toml`
    (docs/configuration.md): `profile="sim"`, `max_cost=5`, `params={"temperature": 0}`, `variables={"language":
    "German"}` for `--set`. `output` [default: `rows.PROMPT.jsonl`, or as the command for a path] identifies the run,
    which the same call continues. `progress` shows a bar.

    Raises RefusedError before any request, BusyError if another process works on the run, StorageError for disk errors.
    Errors of the provider are in the result.
    """
    call = _Call(rows, prompt, {"model": model, "output": output, **options})
    looping = True
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        looping = False
    if not looping:
        return run_coroutine(call.to_end(progress=progress))
    found: list[Result] = []
    failure: list[BaseException] = []

    def in_thread() -> None:
        try:
            found.append(run_coroutine(call.to_end(progress=progress)))
        except BaseException as error:  # noqa: BLE001  raised again in the caller's thread
            failure.append(error)

    thread = threading.Thread(target=in_thread, name="batchrun")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return found[0]


def open(
    rows: Rows,
    prompt: str | Path | None = None,
    *,
    model: str | None = None,
    output: str | Path | None = None,
    **options: Any,
) -> "Run":
    """A run whose rows can be processed as they end, on the running loop. Parameters and errors are those of `run`.

    Use it as an asynchronous context manager. Leaving it early stops the run: it waits for requests in flight, and the
    other rows stay pending.
    """
    return Run(_Call(rows, prompt, {"model": model, "output": output, **options}))


class Run:
    """Iterate over it for outcomes as rows end; then await `result`."""

    def __init__(self, call: "_Call") -> None:
        self._call = call
        self._task: asyncio.Task[Result] | None = None
        self._ended: asyncio.Queue[int | None] = asyncio.Queue()

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._call.prepare)
        self._task = asyncio.get_running_loop().create_task(self._call.to_end(progress=False, on_event=self._on_event))
        self._task.add_done_callback(lambda _: self._ended.put_nowait(None))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._call.stop()
            await asyncio.wait([self._task])

    def _on_event(self, event: Event) -> None:
        for each in single(event):
            if isinstance(each, RowFinished):
                self._ended.put_nowait(each.seq)

    async def __aiter__(self) -> AsyncIterator[Outcome]:
        assert self._task is not None, "use it as an asynchronous context manager"
        while (seq := await self._ended.get()) is not None:
            yield await asyncio.to_thread(self._call.outcome, seq)
        if not self._task.cancelled() and (error := self._task.exception()) is not None:
            raise error

    async def result(self) -> Result:
        """Raises what `run` raises."""
        assert self._task is not None, "use it as an asynchronous context manager"
        return await self._task

    def stop(self) -> None:
        """Waits for requests in flight."""
        self._call.stop()


class _Call:
    def __init__(self, rows: Rows, prompt: str | Path | None, options: Mapping[str, Any]) -> None:
        self._rows = rows
        self._kind = _frame_kind(rows)
        chosen = {name: value for name, value in options.items() if value is not None}
        known = {field.name for field in dataclasses.fields(Settings)}
        for name in chosen.keys() - known:
            raise RefusedError(
                f"there is no option {name}{did_you_mean(name, tuple(known))}",
                "docs/configuration.md lists the options",
            )
        if "variables" in chosen:
            chosen["set"] = {name: str(value) for name, value in chosen.pop("variables").items()}
        if "params" in chosen:
            chosen["params"] = {name: json.dumps(value) for name, value in chosen["params"].items()}
        if prompt is not None:
            chosen["prompt"] = str(prompt)
        self._options = {name: str(value) if isinstance(value, Path) else value for name, value in chosen.items()}
        self._prepared: Prepared | None = None
        self._run: EngineRun | None = None
        self._stopped = False

    def prepare(self) -> None:
        """Write the rows, find or make the run; blocks. Raises RefusedError."""
        if self._prepared is not None:
            return
        options = dict(self._options)
        if isinstance(self._rows, str | Path):
            options["input"] = str(self._rows)
        else:
            named = str(options.get("prompt", "run"))
            stem = "prompt" if "{" in named or " " in named else Path(named).stem
            options.setdefault("output", f"rows.{stem}.jsonl")
            output = str(options["output"])
            directory = registry.directory_for(output, cast("str | None", options.get("runs_dir")))
            prepare_directory(directory)
            source = directory / f"{Path(output).name}.rows.jsonl"
            with replaced(source) as stream:  # another process may be reading the rows of an earlier call
                stream.writelines(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in _records(self._rows))
            options["input"] = str(source)
            options.setdefault("format", "jsonl")
        gathered = gather(options)
        check_input(gathered.settings)
        self._access = check_provider(gathered)
        self._observers = Observers(gathered.settings)
        self._prepared = prepare(gathered, lambda _: None)

    async def to_end(self, *, progress: bool, on_event: Callable[[Event], None] = lambda _: None) -> Result:
        await asyncio.to_thread(self.prepare)
        assert self._prepared is not None
        prepared, fold, observers = self._prepared, Fold(), self._observers
        bar = _Bar() if progress else None

        def emit(event: Event) -> None:
            fold(event)
            observers.handle(event)
            if bar is not None and isinstance(event, RunStarted):
                bar.start(event)
            on_event(event)

        def on_start(run: EngineRun) -> None:
            self._run = run
            if self._stopped:
                self.stop()

        loop = asyncio.get_running_loop()
        painting = None if bar is None else loop.create_task(bar.paint(fold))
        try:
            ended = await execute(prepared, self._access, emit, on_start=on_start)
            secrets = () if self._access.key is None else (self._access.key.value,)
            known = ended.notes
            ended = await observers.finish(ended, end_event(ended, prepared.run), secrets=secrets)
            for note in ended.notes[len(known) :]:
                log.warning("%s", note)
        finally:
            await observers.close()
            if painting is not None:
                painting.cancel()
            if bar is not None:
                bar.close(fold)
        return await asyncio.to_thread(self._result, prepared, ended)

    def stop(self) -> None:
        self._stopped = True
        if self._run is not None and self._prepared is not None:
            self._run.stop(RunResult(ExitCode.INTERRUPTED, "stopped"), drain=self._prepared.plan.drain)

    def outcome(self, seq: int) -> Outcome:
        assert self._prepared is not None
        with Reader.open(self._prepared.run.path) as reader:
            record = reader.row(seq=seq)
        assert record is not None, "an event follows its commit"
        return _outcome(self._prepared.plan, record)

    def _result(self, prepared: Prepared, ended: RunEnded) -> Result:
        with Reader.open(prepared.run.path) as reader:
            records = [
                record for record in reader.export_rows() if record.state in (State.DONE, State.FAILED, State.SKIPPED)
            ]
        outcomes = [_outcome(prepared.plan, record) for record in records]
        done = [{**outcome.row, **outcome.output} for outcome in outcomes if outcome.state == State.DONE]
        totals = ended.totals
        return Result(
            rows=done if self._kind is None else self._kind(done),
            outcomes=outcomes,
            totals=totals,
            exit_code=ended.exit_code,
            message=ended.message,
            hint=ended.hint,
            cost=totals.cost / 1e12 if totals.cost or not totals.unpriced else None,
            output=Path(prepared.plan.output),
            run=prepared.run.id,
        )


def _outcome(plan: Plan, record: Record) -> Outcome:
    done = record.state is State.DONE
    output = {name: json.loads(text) for name, text in additions(plan, record).items()} if done else {}
    try:
        row = json.loads(record.text)
    except ValueError:
        row = record.text
    return Outcome(
        record.line,
        row if isinstance(row, dict) else {"text": row},
        output,
        str(record.state),
        record.permanent,
        record.cause,
        record.message,
        record.flags,
        record.attempts,
        record.seconds,
    )


def _frame_kind(rows: Rows) -> Callable[[list[dict[str, Any]]], Any] | None:
    # imports nothing: only the class of a data frame is looked at
    module = type(rows).__module__.partition(".")[0]
    if module == "pandas" and hasattr(rows, "to_dict") and hasattr(rows, "columns"):
        return cast("Callable[[list[dict[str, Any]]], Any]", type(rows))
    if module == "polars" and hasattr(rows, "to_dicts"):
        return cast("Callable[[list[dict[str, Any]]], Any]", type(rows))
    return None


def _records(rows: Rows) -> Iterable[dict[str, Any]]:
    """Dictionaries of JSON values. Raises RefusedError."""
    if hasattr(rows, "to_dicts"):
        rows = rows.to_dicts()
    elif hasattr(rows, "to_dict") and hasattr(rows, "columns"):
        rows = rows.to_dict("records")
    number = 0
    for number, row in enumerate(cast("Iterable[Any]", rows), 1):
        if isinstance(row, Mapping):
            yield plain(cast("Mapping[str, Any]", row))
        elif dataclasses.is_dataclass(row) and not isinstance(row, type):
            yield plain(dataclasses.asdict(row))
        elif isinstance(row, str):
            yield {"text": row}
        else:
            raise RefusedError(
                f"row {number} is of type {type(row).__name__}, not a mapping, dataclass or text",
                "pass dictionaries, dataclasses, texts, or a data frame of pandas or Polars",
            )
    if not number:
        raise RefusedError("there are no rows", "pass at least one row")


class _Bar:
    # tqdm makes it a widget in a notebook
    def __init__(self) -> None:
        self._bar: Any = None

    def start(self, event: RunStarted) -> None:
        from tqdm.auto import tqdm  # noqa: PLC0415  only where a bar is shown

        totals = event.totals
        self._bar = tqdm(total=event.goal, initial=totals.done + totals.failed + totals.skipped, unit=" rows")

    async def paint(self, fold: Fold) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_TICK)
            self._show(fold, loop.time())

    def close(self, fold: Fold) -> None:
        if self._bar is not None:
            self._show(fold, asyncio.get_running_loop().time())
            self._bar.close()

    def _show(self, fold: Fold, now: float) -> None:
        if self._bar is not None:
            progress = fold.snapshot(now)
            with contextlib.suppress(OSError):
                self._bar.n = progress.finished
                self._bar.set_postfix_str(f"{progress.failed} failed, {progress.in_flight} in flight", refresh=True)
