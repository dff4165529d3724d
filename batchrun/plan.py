"""The plan: everything the user chose, resolved once and frozen."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from batchrun.models import Endpoint, Flag, Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything a run needs to know, JSON-serialisable; kept in the journal. Durations are seconds.

    What decides the request of a row (and so drift) is `kind`, `endpoint`, `model`, `params`, `prompt_source`,
    `variables` and `columns`; the rest may change from one command to the next.
    """

    kind: Kind
    input: str
    input_format: str
    id_column: str | None
    prompt_name: str | None
    prompt_path: str | None
    prompt_source: str | None
    variables: Mapping[str, str] = field(default_factory=dict[str, str])
    columns: Mapping[str, str] = field(default_factory=dict[str, str])
    endpoint: Endpoint
    model: str | None
    params: Mapping[str, Any] = field(default_factory=dict[str, Any])

    output: str
    output_format: str
    output_column: str

    profile: str
    base_url: str
    api_key_env: str | None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    ca_file: str | None = None
    simulated: bool = False

    concurrency: int = 256
    concurrency_fixed: bool = False
    rpm: float | None = None
    tpm: float | None = None
    max_attempts: int = 5
    timeout: float = 600.0
    drain: float = 60.0
    max_wait: float | None = None
    give_up_after: float = 600.0
    stop_after: float | None = None
    limit: int | None = None
    sample: int | None = None
    skip_invalid: bool = False
    fail_on: frozenset[Flag] = frozenset()
    schema_retries: int = 2
