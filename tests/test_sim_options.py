"""How the simulated provider's faults, latencies and settings are spelled, and what they mean."""

import json
from statistics import mean, median
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.errors import RefusedError
from batchrun.sim import NAMED, Fault, Latency, Settings, from_json, parse_fault, parse_latency
from batchrun.sim.faults import draw, fraction

FRACTIONS = [(index + 0.5) / 1000 for index in range(1000)]


@pytest.mark.parametrize(
    ("spelling", "meaning"),
    [
        ("503=0.1", Fault("503", share=0.1)),
        ("reset=first", Fault("reset", tries=1)),
        ("500=first:3", Fault("500", tries=3)),
        ("400=text:POISON: yes", Fault("400", text="POISON: yes")),
        ("quota=10-", Fault("quota", start=10)),
        ("down=0.5-20", Fault("down", start=0.5, end=20)),
        (" HTML = 1 ", Fault("html", share=1)),
    ],
)
def test_a_fault_is_read_and_written_back(spelling: str, meaning: Fault) -> None:
    assert parse_fault(spelling) == meaning
    assert parse_fault(str(meaning)) == meaning


@pytest.mark.parametrize(
    "spelling",
    [
        "",
        "503",
        "503=",
        "503=2",
        "503=-1",
        "503=nan",
        "299=0.1",
        "600=0.1",
        "503=first:0",
        "503=first:x",
        "503=text:",
        "down=0.5",
        "down=20-10",
        "503=often",
        "503=1-x",
        "=0.1",
    ],
)
def test_a_fault_that_means_nothing_is_refused_with_the_spellings(spelling: str) -> None:
    with pytest.raises(RefusedError) as refused:
        parse_fault(spelling)
    assert refused.value.hint


def test_an_unknown_fault_suggests_the_nearest() -> None:
    with pytest.raises(RefusedError, match="'truncat'") as refused:
        parse_fault("truncat=0.1")
    assert refused.value.hint == "did you mean truncate?"


@given(name=st.sampled_from(sorted(NAMED)), share=st.floats(0, 1))
def test_every_named_fault_survives_its_spelling(name: str, share: float) -> None:
    fault = Fault(name, start=1, end=2) if name == "down" else Fault(name, share=share)
    assert parse_fault(str(fault)) == fault


def test_shares_add_up_and_meet_the_same_attempts_again() -> None:
    faults = [parse_fault("503=0.1"), parse_fault("reset=0.2")]

    def meet(seed: int) -> list[str]:
        lots = [fraction(seed, b"%d" % index, 1, b"fault") for index in range(4000)]
        return [fault.name if (fault := draw(faults, lot, 1, b"", 0.0)) else "" for lot in lots]

    met = meet(0)
    assert met == meet(0)
    assert met != meet(1)
    assert met.count("503") / 4000 == pytest.approx(0.1, abs=0.02)
    assert met.count("reset") / 4000 == pytest.approx(0.2, abs=0.03)


@pytest.mark.parametrize(
    ("spelling", "number", "body", "at", "strikes"),
    [
        ("500=first:2", 2, b"", 0.0, True),
        ("500=first:2", 3, b"", 0.0, False),
        ("500=text:bad", 9, b"a bad row", 0.0, True),
        ("500=text:bad", 1, b"a good row", 0.0, False),
        ("500=1-2", 1, b"", 0.99, False),
        ("500=1-2", 1, b"", 1.0, True),
        ("500=1-2", 1, b"", 2.0, False),
        ("500=1-", 1, b"", 1e9, True),
        ("500=0", 1, b"", 0.0, False),
        ("500=1", 1, b"", 0.0, True),
    ],
)
def test_a_fault_strikes_when_its_condition_holds(
    spelling: str, number: int, body: bytes, at: float, strikes: bool
) -> None:
    assert (draw([parse_fault(spelling)], 0.0, number, body, at) is not None) is strikes


@pytest.mark.parametrize(
    ("spelling", "meaning"),
    [
        ("0", Latency()),
        ("0.5", Latency(0.5, 0.5)),
        ("0.5s", Latency(0.5, 0.5)),
        ("0.3-0.8", Latency(0.3, 0.8)),
        ("lognormal:0.5:0.4", Latency(0.5, 0.5, 0.4)),
        ("0.5+0.02/token", Latency(0.5, 0.5, 0.0, 0.02)),
        ("0.02/token", Latency(0, 0, 0, 0.02)),
        ("lognormal:0.5:0.4+0.02/token", Latency(0.5, 0.5, 0.4, 0.02)),
    ],
)
def test_a_latency_is_read_and_written_back(spelling: str, meaning: Latency) -> None:
    assert parse_latency(spelling) == meaning
    assert parse_latency(str(meaning)) == meaning


@pytest.mark.parametrize("spelling", ["", "fast", "-1", "0.8-0.3", "lognormal:1", "nan", "1e9", "1+x/token", "1-2-3"])
def test_a_latency_that_means_nothing_is_refused_with_the_spellings(spelling: str) -> None:
    with pytest.raises(RefusedError, match="Invalid latency") as refused:
        parse_latency(spelling)
    assert refused.value.hint


def test_latencies_follow_their_distribution() -> None:
    uniform = [parse_latency("0.3-0.8").seconds(fraction, 10) for fraction in FRACTIONS]
    assert (min(uniform), max(uniform)) == pytest.approx((0.3, 0.8), abs=0.001)
    assert mean(uniform) == pytest.approx(0.55)
    skewed = [parse_latency("lognormal:0.5:0.4").seconds(fraction, 10) for fraction in FRACTIONS]
    assert median(skewed) == pytest.approx(0.5, abs=0.001)
    assert mean(skewed) == pytest.approx(0.5 * 2.718281828 ** (0.4**2 / 2), abs=0.005)
    assert parse_latency("1+0.02/token").seconds(0.5, 100) == pytest.approx(3.0)


@pytest.mark.parametrize(
    "wrong",
    [{"time_scale": 0.0}, {"time_scale": -1.0}, {"enqueued_tokens": 0}, {"batch_seconds": -1.0}, {"empty_files": "no"}],
)
def test_a_setting_of_batches_that_means_nothing_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(RefusedError, match=next(iter(wrong))):
        Settings(**wrong)


def test_settings_survive_json() -> None:
    settings = Settings(
        rpm=600,
        tpm=1e6,
        concurrency=4,
        queue=True,
        latency=parse_latency("0.3-0.8+0.01/token"),
        faults=(parse_fault("503=0.1"), parse_fault("down=1-2")),
        retry_after="=soon",
    )
    assert from_json(json.loads(json.dumps(settings.to_json()))) == settings


@pytest.mark.parametrize(
    "values",
    [
        {"rpm": 0},
        {"rpm": "600"},
        {"rpm": True},
        {"tpm": -1},
        {"concurrency": 0},
        {"port": 70_000},
        {"port": None},
        {"latency": "fast"},
        {"faults": ["x=1"]},
        {"faults": "503=1"},
        {"retry_after": "later"},
        {"charge": "all"},
        {"queue": 1},
        {"cached": 2.0},
        {"reasoning": -1},
        {"rpn": 5},
        {"dialect": "x"},
        {"dialect": 5},
        {"rpd": 0},
    ],
)
def test_settings_that_cannot_be_meant_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(RefusedError):
        from_json(values)


def test_an_unknown_setting_suggests_the_nearest() -> None:
    with pytest.raises(RefusedError) as refused:
        from_json({"concurency": 5})
    assert refused.value.hint == "did you mean concurrency?"


def test_an_unknown_dialect_suggests_the_nearest() -> None:
    with pytest.raises(RefusedError) as refused:
        from_json({"dialect": "gorq"})
    assert refused.value.hint == "did you mean groq?"
