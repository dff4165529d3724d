"""The options of `run` and `resume`, as data: name, section, what help says. Their forms are checked by `plan`.

Every value stays text here, so that flags, variables and configuration files are checked and refused by one rule.
"""

from collections.abc import Callable

import click
from click.shell_completion import CompletionItem

from batchrun.cli import complete
from batchrun.cli.shape import SectionOption

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]
_INPUT, _OUTPUT, _PROVIDER = "Input and prompt", "Output", "Model and provider"
_SPEED, _FAILURES, _MONEY, _TALK = "Speed", "Failures and time", "Money", "This command"
_POST = "Post-processing"


def value(  # noqa: PLR0913  what a line of help has, by place
    section: str, names: str, metavar: str, text: str, *, many: bool = False, completer: Completer | None = None
) -> SectionOption:
    """An option with a value; `names` are its spellings and, last, the name of the setting."""
    return SectionOption(
        names.split(), section=section, metavar=metavar, help=text, multiple=many, shell_complete=completer
    )


def flag(section: str, names: str, text: str) -> SectionOption:
    """An option that is on where it is typed."""
    return SectionOption(names.split(), section=section, is_flag=True, help=text)


RUN: tuple[SectionOption, ...] = (
    value(_INPUT, "-i --input input", "FILE", "A file, a directory, a glob, or - for standard input.", completer=complete.files),
    value(_INPUT, "-p --prompt prompt", "NAME", "A prompt by name, the path of one, or the text of one with {{ variables }}.", completer=complete.prompts),
    value(_INPUT, "--set set", "NAME=VALUE", "A prompt variable, the same for all rows.", many=True, completer=complete.variables),
    value(_INPUT, "--column columns", "NAME=COLUMN", "A prompt variable from a column of another name.", many=True, completer=complete.columns),
    value(_INPUT, "--id-column id_column", "NAME|none", "What identifies a row [default: custom_id or id, else its content].", completer=complete.columns),
    value(_INPUT, "--sheet sheet", "NAME|N", "The sheet of an Excel workbook [default: the first that is not hidden]."),
    value(_INPUT, "--encoding encoding", "NAME", "The encoding of text that is not UTF-8, such as cp1252 or utf-16."),
    value(_INPUT, "--path path", "NAME", "The list of rows inside a JSON object, such as data or data.items."),
    value(_INPUT, "--limit limit", "N", "Send only the first N rows."),
    value(_INPUT, "--sample sample", "N", "Send only N rows from all over the input."),
    value(_INPUT, "--existing existing", "WHICH", "Translations that a document has already: keep, fuzzy or all [default: keep].", completer=complete.one_of("keep", "fuzzy", "all")),
    value(_INPUT, "--target-language target_language", "CODE", "What a document is translated into [default: the variable language]."),
    value(_INPUT, "--split split", "TOKENS", "Send texts of a document that are longer in pieces: auto, or a number of tokens.", completer=complete.one_of("auto")),
    value(_INPUT, "--blank blank", "WHAT", "Rows whose text is blank: skip them, copy the blank, or send [default: send, and say so].", completer=complete.one_of("skip", "copy", "send")),
    flag(_INPUT, "--skip-invalid skip_invalid", "Record invalid lines as skipped instead of refusing the input."),
    value(_OUTPUT, "-o --output output", "FILE", "Where the rows or the document go, or -; DIR/{path} for a tree [default: INPUT.PROMPT.jsonl, or as the input].", completer=complete.files),
    value(_OUTPUT, "--format format", "FORMAT", "jsonl, csv, tsv, parquet, xlsx; rows for the segments of a document [default: by the output's suffix].", completer=complete.one_of("jsonl", "csv", "tsv", "parquet", "xlsx", "rows")),
    value(_OUTPUT, "--output-column output_column", "NAME", "The column for the reply [default: output]."),
    value(_OUTPUT, "--fail-on fail_on", "FLAGS", "Count these as failures: empty; truncated, refused, filtered, odd too; -empty: not [default: empty].", completer=complete.one_of("truncated", "refused", "filtered", "odd", "-empty")),
    value(_OUTPUT, "--check check", "NAMES", "Check replies against their texts, and ask again: placeholders,numbers,… or none.", many=True),
    flag(_OUTPUT, "--keep-thinking keep_thinking", "Write what a model thought before its answer into the output too."),
    flag(_OUTPUT, "--update update", "After a change of prompt, model or parameters: send the changed rows again."),
    flag(_OUTPUT, "--fresh fresh", "Start over: resend every row and replace the output."),
    value(_PROVIDER, "-m --model model", "NAME", "The model [default: the prompt's, else the profile's].", completer=complete.models),
    value(_PROVIDER, "-P --profile profile", "NAME", "The provider; sim simulates replies, without key [default: openai].", completer=complete.profiles),
    value(_PROVIDER, "--base-url base_url", "URL", "Another address of the provider, such as https://host/v1."),
    value(_PROVIDER, "--endpoint endpoint", "NAME", "chat, responses, embeddings or completions [default: chat].", completer=complete.one_of("chat", "responses", "embeddings", "completions")),
    value(_PROVIDER, "--param params", "NAME=JSON", "A parameter of the request body, such as temperature=0.", many=True),
    value(_PROVIDER, "--header headers", "NAME:VALUE", "A header of every request; ${NAME} stands for a variable.", many=True),
    value(_PROVIDER, "--ca-file ca_file", "FILE", "Trust these certificate authorities.", completer=complete.files),
    flag(_PROVIDER, "--insecure-http insecure_http", "Send the key over http:// to another machine."),
    value(_SPEED, "--concurrency concurrency", "N", "At most N requests in flight; adapts below it [default: 256]."),
    flag(_SPEED, "--concurrency-fixed concurrency_fixed", "Always use the whole --concurrency."),
    value(_SPEED, "--max-bytes-in-flight max_bytes_in_flight", "SIZE", "Bodies of requests and replies held at once; one always passes [default: 48MB]."),
    value(_SPEED, "--rpm rpm", "N", "At most N requests a minute [default: what the provider says]."),
    value(_SPEED, "--tpm tpm", "N", "At most N tokens a minute [default: what the provider says]."),
    value(_SPEED, "--max-wait max_wait", "TIME", "Stop instead of waiting longer than this [default: no limit]."),
    value(_FAILURES, "--max-attempts max_attempts", "N", "Attempts for a row; 429s do not count [default: 5]."),
    value(_FAILURES, "--timeout timeout", "TIME", "Total timeout per attempt [default: 10m]."),
    value(_FAILURES, "--schema-retries schema_retries", "N", "Request again up to N times if a reply fails the schema [default: 2]."),
    value(_FAILURES, "--retry-truncated retry_truncated", "N", "Request a truncated reply again, up to N times, with twice the token limit."),
    value(_FAILURES, "--drain drain", "TIME", "Wait for requests in flight after Ctrl-C [default: 1m]."),
    value(_FAILURES, "--give-up-after give_up_after", "TIME", "Stop when the provider is down this long [default: 10m]."),
    value(_FAILURES, "--stop-after stop_after", "TIME", "Stop gracefully after this time."),
    value(_MONEY, "--max-cost max_cost", "USD", "Stop before this run can cost more, earlier sessions included."),
    value(_MONEY, "--max-total-tokens max_total_tokens", "N", "Stop before it can use more tokens."),
    value(_MONEY, "--max-requests max_requests", "N", "Send no more requests than this."),
    value(_MONEY, "--max-output-tokens max_output_tokens", "N", "Max output tokens for requests that set none."),
    value(_MONEY, "--reserve reserve", "USD", "For each request, what its images, files and tools may cost."),
    flag(_MONEY, "--batch batch", "Send by the provider's Batch API: about half the price, within a day."),
    flag(_MONEY, "--batch-detach batch_detach", "With --batch: submit, take in what is ready, and end; `resume` collects."),
    value(_MONEY, "--batch-tail batch_tail", "live|batch", "Where the last few rows go that batches left [default: live].", completer=complete.one_of("live", "batch")),
    value(_MONEY, "--batch-min batch_min", "N", "How many rows are few: fewer go live [default: 100]."),
    value(_MONEY, "--batch-first batch_first", "N", "Rows of the first batch, which shows early what is wrong [default: 100]."),
    value(_MONEY, "--tier tier", "NAMES", "The service tier, such as flex at half price; flex,standard: the next one where there is no capacity.", completer=complete.one_of("flex", "flex,standard", "standard", "priority")),
    value(_MONEY, "--tier-patience tier_patience", "TIME", "How long a row waits for a tier before it takes the next one [default: 10m]."),
    value(_MONEY, "--finish-by finish_by", "TIME", "When to be done, such as 07:00 or 8h: dearer tiers where the cheap one is too slow."),
    value(_MONEY, "--cache cache", "auto|off", "Use the provider's prompt cache on purpose [default: auto].", completer=complete.one_of("auto", "off")),
    flag(_MONEY, "--dedupe dedupe", "Send equal requests once; the reply answers all their rows."),
    value(_MONEY, "--reuse reuse", "RUN", "Take replies to equal requests from another run.", completer=complete.runs),
    value(_POST, "--post post", "FUNCTION", "FILE.py:name, package.module:name or a built-in one; repeat it to chain.", many=True, completer=complete.files),
    value(_POST, "--workers workers", "N|auto|0", "Worker processes; 0 is a thread of this process [default: auto]."),
    value(_POST, "--post-timeout post_timeout", "TIME", "How long a row may take [default: 1m]."),
    value(_POST, "--post-concurrency post_concurrency", "N", "Rows at a time in each worker for coroutine functions [default: 16]."),
    flag(_TALK, "--dry-run dry_run", "Check and render everything, make no call."),
    flag(_TALK, "-y --yes yes", "Send what is refused as a mistake: lines of a document, a prompt that is the same for all rows."),
    flag(_TALK, "--json json", "One event a line on standard output."),
    flag(_TALK, "-q --quiet quiet", "Print only the provider, errors and the summary."),
    flag(_TALK, "--no-progress no_progress", "No bar and no status lines."),
    flag(_TALK, "-v --verbose verbose", "Log to standard error."),
    value(_TALK, "--notify notify", "CMD", "At the end, run CMD (no shell) with the account as JSON on its standard input."),
    value(_TALK, "--metrics-file metrics_file", "FILE", "Prometheus metrics every few seconds, for a node exporter (FILE.prom).", completer=complete.files),
    flag(_TALK, "--otel otel", "Send OpenTelemetry spans and metrics by OTLP (the extra otel)."),
    value(_TALK, "--log-file log_file", "FILE", "Log to a file.", completer=complete.files),
    value(_TALK, "--runs-dir runs_dir", "DIR", "Where journals are kept [default: .batchrun beside the output].", completer=complete.files),
)  # fmt: skip

_NOT_RESUMED = {
    *(
        "input",
        "prompt",
        "set",
        "columns",
        "id_column",
        "sheet",
        "encoding",
        "path",
        "blank",
        "skip_invalid",
        "output",
        "format",
        "output_column",
        "update",
    ),
    *("fresh", "model", "endpoint", "params", "dry_run", "existing", "target_language", "split"),
}
RESUME = tuple(option for option in RUN if option.name not in _NOT_RESUMED)


def talk(*names: str) -> list[click.Parameter]:
    """The options of those names that other commands share with `run`."""
    return [option for option in RUN if option.name in names]


def configured_runs_dir() -> str | None:
    """Where journals are kept if the command line does not say, for commands that look for runs."""
    from batchrun.plan.config import runs_directory  # noqa: PLC0415  not for --help

    return runs_directory()
