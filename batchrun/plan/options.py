"""The one table of a run's options, for flags, completion, help and the app."""

from typing import NamedTuple

_INPUT, _OUTPUT, _PROVIDER = "Input and prompt", "Output", "Model and provider"
_SPEED, _FAILURES, _MONEY, _TALK = "Speed", "Failures and time", "Money", "This command"
_POST = "Post-processing"


class Option(NamedTuple):
    section: str
    name: str
    spellings: tuple[str, ...]
    metavar: str  # empty for a switch
    help: str
    many: bool = False
    choices: tuple[str, ...] = ()  # for completion only


def _value(  # noqa: PLR0913  what a line of help has, by place
    section: str, names: str, metavar: str, text: str, *, many: bool = False, choices: tuple[str, ...] = ()
) -> Option:
    *spellings, name = names.split()
    return Option(section, name, tuple(spellings), metavar, text, many, choices)


def _flag(section: str, names: str, text: str) -> Option:
    return _value(section, names, "", text)


OPTIONS: tuple[Option, ...] = (
    _value(_INPUT, "-i --input input", "FILE", "A file, a directory, a glob, or - for standard input."),
    _value(_INPUT, "-p --prompt prompt", "NAME", "The prompt: a name, a file, or a text with {{ variables }}."),
    _value(_INPUT, "--set set", "NAME=VALUE", "A prompt variable with the same value for all rows.", many=True),
    _value(_INPUT, "--column columns", "NAME=COLUMN", "A prompt variable from a column of another name.", many=True),
    _value(_INPUT, "--id-column id_column", "NAME|none", "What identifies a row [default: custom_id or id, else its content]."),
    _value(_INPUT, "--sheet sheet", "NAME|N", "The sheet of an Excel workbook [default: the first that is not hidden]."),
    _value(_INPUT, "--encoding encoding", "NAME", "The encoding of text that is not UTF-8, such as cp1252 or utf-16."),
    _value(_INPUT, "--path path", "NAME", "The list of rows inside a JSON object, such as data or data.items."),
    _value(_INPUT, "--limit limit", "N", "Send only the first N rows; 0 reads the input and sends nothing."),
    _value(_INPUT, "--sample sample", "N", "Send only N rows, spread evenly over the input."),
    _value(_INPUT, "--existing existing", "WHICH", "Translations that a document already has: keep them, redo fuzzy ones, or redo all [default: keep].", choices=("keep", "fuzzy", "all")),
    _value(_INPUT, "--target-language target_language", "CODE", "The target language of a document [default: the variable language]."),
    _value(_INPUT, "--split split", "TOKENS", "Send texts of a document that are longer than this in pieces: auto, or a number of tokens.", choices=("auto",)),
    _value(_INPUT, "--reduce reduce", "TOKENS", "Summarise texts that are longer than this in parts, then combine the replies: auto, or a number of tokens.", choices=("auto",)),
    _value(_INPUT, "--detail detail", "LEVEL", "Detail at which the model sees pictures: low, high or auto [default: the provider's].", choices=("low", "high", "auto")),
    _value(_INPUT, "--blank blank", "WHAT", "Rows with a blank text: skip them, copy the blank text, or send them [default: send, with a notice].", choices=("skip", "copy", "send")),
    _flag(_INPUT, "--skip-invalid skip_invalid", "Record invalid lines as skipped instead of refusing the input."),
    _value(_OUTPUT, "-o --output output", "FILE", "The output file, or - for standard output; DIR/{path} for a tree [default: INPUT.PROMPT.jsonl, with .csv or .tsv for such an input]."),
    _value(_OUTPUT, "--format format", "FORMAT", "jsonl, csv, tsv, parquet, xlsx; rows for the segments of a document [default: by the output's suffix].", choices=("jsonl", "csv", "tsv", "parquet", "xlsx", "rows")),
    _value(_OUTPUT, "--output-column output_column", "NAME", "The column for the reply [default: output]."),
    _value(_OUTPUT, "--lane-column lane_column", "NAME", "Add a column with the name of the endpoint that answered."),
    _value(_OUTPUT, "--fail-on fail_on", "FLAGS", "Replies that count as failures: empty, truncated, refused, filtered, odd, numbers; -empty removes one [default: empty].", choices=("truncated", "refused", "filtered", "odd", "numbers", "-empty")),
    _value(_OUTPUT, "--check check", "NAMES", "Check replies against the source text and request failing ones again: placeholders,numbers,… or none.", many=True),
    _flag(_OUTPUT, "--keep-thinking keep_thinking", "Include the model's thinking in the output."),
    _flag(_OUTPUT, "--update update", "After a change of prompt, model or input: send the changed rows again."),
    _flag(_OUTPUT, "--fresh fresh", "Start over: resend every row and replace the output."),
    _value(_PROVIDER, "-m --model model", "NAME", "The model [default: the prompt's, else the profile's]."),
    _value(_PROVIDER, "-P --profile profile", "NAME", "The provider; sim simulates one and needs no key [default: openai]."),
    _value(_PROVIDER, "--base-url base_url", "URL", "The provider's address, such as https://host/v1; repeat it to share the rows among several.", many=True),
    _value(_PROVIDER, "--pool pool", "NAME", "Share the rows among the profiles of [pools.NAME] in batchrun.toml."),
    _value(_PROVIDER, "--fallback fallback", "NAME", "Send rows that fail permanently once more, to the model of this profile."),
    _value(_PROVIDER, "--pool-policy pool_policy", "POLICY", "Which of several endpoints gets a row: soonest, cheapest, primary [default: soonest].", choices=("soonest", "cheapest", "primary")),
    _value(_PROVIDER, "--endpoint endpoint", "NAME", "chat, responses, embeddings, completions or transcriptions [default: chat].", choices=("chat", "responses", "embeddings", "completions", "transcriptions")),
    _value(_PROVIDER, "--param params", "NAME=JSON", "A parameter of the request body, such as temperature=0.", many=True),
    _value(_PROVIDER, "--header headers", "NAME:VALUE", "A header of every request; ${NAME} is replaced by an environment variable.", many=True),
    _value(_PROVIDER, "--ca-file ca_file", "FILE", "Trust these certificate authorities."),
    _flag(_PROVIDER, "--insecure-http insecure_http", "Allow sending the key over http:// to another machine."),
    _value(_SPEED, "--concurrency concurrency", "N", "At most N requests in flight; adapts below it [default: 256]."),
    _flag(_SPEED, "--concurrency-fixed concurrency_fixed", "Always use the whole --concurrency."),
    _value(_SPEED, "--queue-gauges queue_gauges", "auto|on|off", "Adapt to the queue that an inference server reports in /metrics [default: auto, only your own servers].", choices=("auto", "on", "off")),
    _value(_SPEED, "--max-bytes-in-flight max_bytes_in_flight", "SIZE", "Request and reply bodies held in memory at once [default: 48MB]."),
    _value(_SPEED, "--processes processes", "N", "Send requests from N child processes, if one process is too slow [default: 1]."),
    _value(_SPEED, "--senders senders", "N|node", "Send requests from N processes on a Ray cluster (--ray); node: one on each node."),
    _value(_SPEED, "--rpm rpm", "N", "At most N requests per minute [default: from the provider]."),
    _value(_SPEED, "--tpm tpm", "N", "At most N tokens per minute [default: from the provider]."),
    _value(_SPEED, "--max-wait max_wait", "TIME", "Stop instead of waiting longer than this [default: no limit]."),
    _value(_FAILURES, "--max-attempts max_attempts", "N", "Attempts per row; 429s do not count [default: 5]."),
    _value(_FAILURES, "--timeout timeout", "TIME", "Total timeout per attempt [default: 10m]."),
    _value(_FAILURES, "--schema-retries schema_retries", "N", "Request again up to N times if a reply fails the schema [default: 2]."),
    _value(_FAILURES, "--retry-truncated retry_truncated", "N", "Request a truncated reply again, up to N times, with twice the token limit."),
    _value(_FAILURES, "--drain drain", "TIME", "Wait for requests in flight after Ctrl-C [default: 1m]."),
    _value(_FAILURES, "--give-up-after give_up_after", "TIME", "Stop when the provider is down this long [default: 10m]."),
    _value(_FAILURES, "--stop-after stop_after", "TIME", "Stop gracefully after this time."),
    _value(_MONEY, "--max-cost max_cost", "USD", "Stop before the run can cost more, all its sessions together."),
    _value(_MONEY, "--max-total-tokens max_total_tokens", "N", "Stop before the run can use more input and output tokens."),
    _value(_MONEY, "--max-requests max_requests", "N", "Send at most N requests, retries included."),
    _value(_MONEY, "--max-output-tokens max_output_tokens", "N", "Max output tokens for requests that set none."),
    _value(_MONEY, "--reserve reserve", "USD", "Highest cost of images, audio, files and tools per request, for --max-cost."),
    _flag(_MONEY, "--batch batch", "Use the provider's Batch API: about half the price, within a day."),
    _flag(_MONEY, "--batch-detach batch_detach", "With --batch: submit, collect what is ready, and end; resume collects the rest."),
    _value(_MONEY, "--batch-tail batch_tail", "live|batch", "How the last few rows are sent: live, or in another batch [default: live].", choices=("live", "batch")),
    _value(_MONEY, "--batch-min batch_min", "N", "With fewer rows than this, send them live [default: 100]."),
    _value(_MONEY, "--batch-first batch_first", "N", "Rows of the first batch, kept small to show errors early [default: 100]."),
    _value(_MONEY, "--tier tier", "NAMES", "The service tier, such as flex at half price; flex,standard: use standard if flex has no capacity.", choices=("flex", "flex,standard", "standard", "priority")),
    _value(_MONEY, "--tier-patience tier_patience", "TIME", "How long a row waits for a tier before it uses the next one [default: 10m]."),
    _value(_MONEY, "--finish-by finish_by", "TIME", "Deadline, such as 07:00 or 8h: if batches or a cheap tier are too slow, send the rest at the full price."),
    _value(_MONEY, "--cache cache", "auto|off", "Mark the fixed part of prompts for the provider's cache [default: auto].", choices=("auto", "off")),
    _flag(_MONEY, "--dedupe dedupe", "Send equal requests once; the reply answers all their rows."),
    _value(_MONEY, "--reuse reuse", "RUN", "Reuse replies to equal requests from another run."),
    _value(_POST, "--post post", "FUNCTION", "A function for each reply: FILE.py:name, package.module:name or a built-in one; repeat it to chain.", many=True),
    _value(_POST, "--workers workers", "N|auto|0|ray", "Number of worker processes; 0: a thread; ray or ray:N: a Ray cluster [default: auto]."),
    _value(_POST, "--ray ray", "HOST:PORT|auto", "The Ray cluster for --workers ray and --senders; auto: the cluster of this machine [default: auto]."),
    _value(_POST, "--post-timeout post_timeout", "TIME", "Timeout of post-processing per row [default: 1m]."),
    _value(_POST, "--post-concurrency post_concurrency", "N", "Concurrent rows per worker, for coroutine functions [default: 16]."),
    _flag(_TALK, "--dry-run dry_run", "Check and render everything; send nothing."),
    _flag(_TALK, "-y --yes yes", "Accept a likely mistake: a document read as lines, or a prompt that is the same for all rows."),
    _flag(_TALK, "--json json", "Print JSON events on standard output, one per line."),
    _flag(_TALK, "-q --quiet quiet", "Print only the provider, errors and the summary."),
    _flag(_TALK, "--no-progress no_progress", "No bar and no status lines."),
    _flag(_TALK, "-v --verbose verbose", "Log to standard error."),
    _value(_TALK, "--notify notify", "CMD", "At the end, run CMD (no shell) with the account as JSON on its standard input."),
    _value(_TALK, "--metrics-file metrics_file", "FILE", "Write Prometheus metrics every few seconds, for a node exporter (FILE.prom)."),
    _flag(_TALK, "--otel otel", "Send OpenTelemetry spans and metrics by OTLP (the extra otel)."),
    _value(_TALK, "--log-file log_file", "FILE", "Log to a file."),
    _value(_TALK, "--runs-dir runs_dir", "DIR", "The directory of journals [default: .batchrun beside the output]."),
)  # fmt: skip

FLAG_OF = {option.name: option.spellings[-1] for option in OPTIONS}
