"""Refusals in the words of providers: what they mean decides, for the run and for a row, and not their status."""

import json
from pathlib import Path
from typing import Any

import pytest
from program import Program
from wire import Answer, Call, FaultServer, chat, page, whole

C = 4
GOOD = 30


def error(status: int, message: str, *headers: tuple[str, str], **members: object) -> Answer:
    return whole(json.dumps({"error": {"message": message, **members}}).encode(), status, *headers)


RUNS_MATTER: dict[str, tuple[Answer, str, int]] = {
    "money as 403": (error(403, "Key limit exceeded (monthly limit).", code=403), "used up", C),
    "money as 400": (error(400, "The account is not in good standing.", code="Arrearage"), "used up", C),
    "money as 429": (error(429, "Please recharge.", type="exceeded_current_quota_error"), "used up", C),
    "money as 412": (error(412, "Account suspended: spending limit reached"), "used up", C),
    "money inside a 200": (whole(b'{"error": {"message": "more credits than are left", "code": 402}}'), "used up", C),
    "a model that is gone": (whole(b'{"status": 404, "detail": "Function f: Not found"}', 404), "alike", 20 + 3 * C),
    "a firewall": (page(403), "alike", 20 + 3 * C),
    "a plan without the model": (error(429, "Quota exceeded: requests, limit: 0, model: m"), "plan", C),
}
"""Answers to everything from some row on, what is said of them, and how many calls may meet them."""
QUICK = {"money as 400", "a model that is gone"}


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in RUNS_MATTER]
)
async def test_S33_a_refusal_about_the_run_stops_it_at_any_time_and_its_rows_are_pending(
    program: Program, name: str
) -> None:
    answer, said, most = RUNS_MATTER[name]
    program.rows(f"row {number}" for number in range(120))
    async with FaultServer(choose=lambda _, __: whole() if len(server.calls) <= GOOD else answer) as server:
        ran = await program.run(*program.send(server.base_url, "--concurrency", str(C)))
        assert ran.code == 4, ran.err
        assert said in ran.err
        assert len(server.calls) <= GOOD + most
        assert program.account() == {"done": GOOD, "pending": 120 - GOOD}
    async with FaultServer() as server:
        again = await program.run(*program.send(server.base_url))
        assert again.code == 0, again.err
        assert len(server.calls) == 120 - GOOD


ONCE: dict[str, Answer] = {
    "425": error(425, "Too Early"),
    "499": whole(b'[{"error": {"code": 499, "message": "The operation was cancelled.", "status": "CANCELLED"}}]', 499),
    "424": error(424, "Request failed during generation: Server error", error_type="generation"),
    "498": error(498, "Flex tier capacity exceeded.", code="capacity_exceeded"),
    "overloaded": error(400, "Our servers are currently overloaded. Please try again later."),
    "JSON body": error(400, "We could not parse the JSON body of your request."),
    "image": error(400, "Timeout while downloading https://example.com/a.png."),
    "loading": whole(b'{"error": "Model m is currently loading", "estimated_time": 1.0}', 503),
}
"""What passes: each row meets it once."""
ALWAYS: dict[str, tuple[Answer, str]] = {
    "context": (error(400, "maximum context length is 10 tokens.", code="context_length_exceeded"), "too long"),
    "no code": (error(400, "This endpoint's maximum context length is 4096 tokens", code=400), "too long"),
    "zhipu": (error(400, "Prompt 超长", code="1261"), "too long"),
    "over 429": (error(429, "on tokens: Limit 7000, Used 0, Requested ~12903. Try again in 50s."), "larger than"),
    "over 413": (error(413, "Request too large: Limit 6000, Requested 12328"), "larger than"),
    "filter": (error(403, "Your input was flagged by moderation"), "content filter"),
    "temperature": (error(400, "temperature must be non-negative, got -1.0.", code=400), "400: temperature"),
}
"""What never passes, and the beginning of its cause."""


async def test_S34_each_refusal_of_a_row_passes_or_fails_it_after_one_call_and_is_grouped_by_its_meaning(
    program: Program,
) -> None:
    texts = [f"{name}|{number}" for name in [*ONCE, *ALWAYS] for number in range(2)]
    program.rows(text for pair in zip(texts, [f"good|{n}" for n in range(len(texts))], strict=True) for text in pair)

    def choose(call: Call, times: int) -> Answer:
        name = call.prompt.split("|")[0]
        if name in ALWAYS:
            return ALWAYS[name][0]
        return ONCE[name] if name in ONCE and times == 1 else whole()

    async with FaultServer(choose=choose) as server:
        ran = await program.run(*program.send(server.base_url, "--concurrency", str(C), "--max-attempts", "2"))
    assert ran.code == 3, ran.err
    failed = program.failed()
    assert len(failed) == 2 * len(ALWAYS)
    assert all(server.prompts[f"{name}|{n}"] == 1 for name in ALWAYS for n in range(2))
    assert all(server.prompts[f"{name}|{n}"] == 2 for name in ONCE for n in range(2))
    causes = {entry["cause"] for entry in failed.values()}
    assert len(causes) == 4
    assert all(any(cause.startswith(begins) for cause in causes) for _, begins in ALWAYS.values())
    assert "400 400" not in ran.err
    assert "too long for the model" in ran.err


MOOD = """---
name: mood
model: {id: m, options: {maxOutputTokens: 100}}
outputs: {type: object, properties: {mood: {type: string}}, required: [mood], additionalProperties: false}
---
Judge: {{ text }}
"""
STRICT = {"deepseek": "json_schema", "mistral": "max_completion_tokens"}


@pytest.mark.parametrize("profile", STRICT)
async def test_S35_a_built_in_profile_sends_what_its_provider_takes_and_a_finished_run_is_sent_to_nobody_again(
    program: Program, profile: str
) -> None:
    program.rows(f"row {number}" for number in range(8))
    (program.directory / "mood.prompty").write_text(MOOD)

    def choose(call: Call, _: int) -> Answer:
        body: dict[str, Any] = json.loads(call.body)
        refused = STRICT[profile] in json.dumps(body)
        return error(422, "Extra inputs are not permitted") if refused else whole(chat('{"mood": "good"}'))

    key = {f"{profile.upper()}_API_KEY": "k"}
    async with FaultServer(choose=choose) as server:
        named = ("--input", "in.jsonl", "--prompt", "mood.prompty", "-P", profile, "--base-url", server.base_url)
        ran = await program.run(*named, "--output", "out.jsonl", env=key)
        assert ran.code == 0, ran.err
        assert len(server.calls) == 8
        again = await program.run(*named, "--output", "out.jsonl", env=key)
        assert again.code == 0, again.err
        assert len(server.calls) == 8


async def test_S36_a_line_of_the_users_decides_what_an_answer_means(program: Program) -> None:
    program.rows(f"row {number}" for number in range(40))
    Path(program.directory / "batchrun.toml").write_text(
        '[[answers]]\nmeans = "account empty"\nstatus = 403\nsays = "wallet * exhausted"\n'
    )
    async with FaultServer(
        choose=lambda _, __: whole() if len(server.calls) <= 10 else error(403, "your wallet is Exhausted")
    ) as server:
        ran = await program.run(*program.send(server.base_url, "--concurrency", "2"))
        assert ran.code == 4, ran.err
        assert len(server.calls) <= 12
    assert program.account() == {"done": 10, "pending": 30}
