"""Prices kept for the day are those of genai-prices, and what is kept counts only where it was made."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from random import Random

import pytest
from genai_prices.data import providers
from genai_prices.data_snapshot import DataSnapshot, get_snapshot, set_custom_snapshot
from genai_prices.types import Usage as Listed
from hypothesis import given, settings
from hypothesis import strategies as st

from batchrun import price_cache, user_directories
from batchrun.models import Usage
from batchrun.pricing import STANDARD, Price, Rate, Rates, Tariff, price_of, usd

OPENAI = "https://api.openai.com/v1"
NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)
TIERS = {
    STANDARD: {},
    "flex": {"service_tier": "flex"},
    "priority": {"service_tier": "priority"},
    "batch": {"processing": "batch"},
    "fast": {"service_tier": "fast", "speed": "fast"},
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "batchrun"


PRICED = """
import sys
from batchrun.pricing import Tariff
print(Tariff("https://api.openai.com/v1").of("gpt-5.4-mini").text, "genai_prices" in sys.modules, sep="\\n")
"""


def priced(folder: Path) -> tuple[str, bool]:
    """What a process of its own says about a price, and whether it has imported genai-prices."""
    environ = {**os.environ, "XDG_CACHE_HOME": str(folder), "PYTHONPATH": str(Path(price_cache.__file__).parents[1])}
    command = [sys.executable, "-c", PRICED]
    text, imported = subprocess.run(command, env=environ, capture_output=True, text=True, check=True).stdout.split(
        "\n", 1
    )
    return text, imported == "True\n"


def test_the_second_process_of_a_day_has_the_same_price_without_genai_prices(tmp_path: Path) -> None:
    first, second = priced(tmp_path), priced(tmp_path)
    assert "(genai-prices" in first[0]
    assert first == (second[0], True)
    assert second[1] is False or datetime.now(UTC).hour == 0  # a day can end between them
    (kept,) = (tmp_path / "batchrun").iterdir()
    assert b"openai.com" not in kept.read_bytes()  # an address can contain a name of somebody's own


@pytest.mark.parametrize(
    ("first", "each"), [(0, 15), *(pytest.param(first, 4, marks=pytest.mark.slow) for first in range(4))]
)
def test_every_listed_model_costs_what_genai_prices_says_also_when_it_was_kept(first: int, each: int) -> None:
    models = [(provider, found) for provider in providers for found in provider.models][first::each]
    random, compared = Random(first), 0
    for provider, found in models:
        price = price_of(provider, found, NOON)
        if price is None:  # priced by something other than input tokens
            assert found.get_prices(NOON).input_mtok is None
            continue
        assert Price.from_json(json.loads(json.dumps(price.to_json()))) == price
        for tier in price.rates:
            usage = drawn(random, price.standard)
            at = NOON.replace(hour=random.randrange(24), minute=random.choice([15, 45]))
            bill = price.bill(usage._replace(tier=tier), None, at.timestamp())
            worst = price.worst(usage.input, usage.output, (tier,))
            assert bill is not None
            assert worst is not None
            listed = Listed(
                input_tokens=usage.input,
                output_tokens=usage.output,
                cache_read_tokens=usage.cached,
                cache_write_tokens=usage.written,
                cache_write_1h_tokens=usage.written_long,
                output_reasoning_tokens=usage.reasoning,
            )
            theirs = found.calc_price(listed, provider, genai_request_timestamp=at, price_context=TIERS[tier])
            # rounded up to whole picodollars per token
            assert usd(bill.total) == pytest.approx(float(theirs.total_price), rel=1e-4, abs=1e-12), found.id
            assert bill.total <= worst
            compared += 1
    assert compared > len(models) * 0.8


def drawn(random: Random, rates: Rates) -> Usage:
    cached, written, fresh = random.randrange(4000), random.randrange(4000), random.randrange(1, 300_000)
    output = random.randrange(1, 4000) if rates.output else 0
    reasoning, long = random.randrange(output + 1), random.randrange(written + 1)
    return Usage(fresh + cached + written, output, cached, reasoning, written, long)


numbers = st.integers(0, 10**12)
rate = st.builds(Rate, numbers, st.lists(st.tuples(numbers, numbers), max_size=2).map(tuple))
table = st.dictionaries(
    st.sampled_from(["default", "batch"]), st.builds(Rates, rate, st.none() | rate, written=rate, request=numbers)
)


@settings(max_examples=15)
@given(rates=table, slots=st.lists(table, max_size=3), window=st.none() | numbers)
def test_a_price_is_read_as_it_was_written(rates: dict[str, Rates], slots: list[dict[str, Rates]], window: int) -> None:
    price = Price(rates=rates, slots=tuple(slots), source="a: b/ü", context_window=window)
    assert Price.from_json(json.loads(json.dumps(price.to_json()))) == price


def test_what_was_not_found_is_kept_too(folder: Path) -> None:
    price_cache.add("today", "a", None)
    price_cache.add("today", "b", [1])
    assert price_cache.read("today") == {"a": None, "b": [1]}
    assert price_cache.read("tomorrow") == {}
    price_cache.add("tomorrow", "c", [2])
    assert price_cache.read("tomorrow") == {"c": [2]}
    assert [path.name for path in folder.iterdir()] == [price_cache.NAME]


def test_a_file_that_is_damaged_or_of_somebody_else_is_ignored(folder: Path) -> None:
    price_cache.add("today", "a", [150_000, "ä"])
    path = folder / price_cache.NAME
    whole = path.read_bytes()
    damaged = [bytes([*whole[:at], whole[at] ^ 1, *whole[at + 1 :]]) for at in range(len(whole))]
    for content in (*damaged, *(whole[:size] for size in range(len(whole))), b"{}", whole + b" "):
        path.write_bytes(content)
        assert price_cache.read("today") == {}
    path.write_bytes(whole)
    if hasattr(os, "geteuid"):
        folder.chmod(0o770)
        assert price_cache.read("today") == {}
        folder.chmod(0o700)
    assert price_cache.read("today") == {"a": [150_000, "ä"]}


def without_home(*_: object, **__: object) -> Path:
    raise RuntimeError("could not determine the home directory")


@pytest.mark.parametrize("place", [lambda *_, **__: Path("~/.cache/batchrun"), without_home])
def test_without_a_home_directory_nothing_is_kept(
    place: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(user_directories, "user_cache_path", place)
    price_cache.add("today", "a", [1])
    assert price_cache.read("today") == {}
    assert not list(tmp_path.iterdir())


def test_where_nothing_can_be_written_nothing_is_kept(folder: Path) -> None:
    folder.touch()
    price_cache.add("today", "a", [1])
    assert price_cache.read("today") == {}


def test_so_many_prices_are_kept_and_no_more(folder: Path) -> None:
    for number in range(price_cache.MOST + 5):
        price_cache.add("today", str(number), None)
    assert len(price_cache.read("today")) == price_cache.MOST
    assert folder.exists()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package `priced_by` with two files."""
    found = tmp_path / "priced_by"
    found.mkdir()
    (found / "__init__.py").touch()
    (found / "data.py").write_text("prices = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(price_cache, "version", lambda _: "1.0")
    return found


def test_prices_are_valid_for_the_day_the_version_and_the_files_that_made_them(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = tmp_path / "ours.py"
    ours.touch()

    def valid(day: int = 29) -> str:
        return price_cache.validity("priced_by", str(ours), date(2026, 11, day))

    seen = {valid(), valid(30)}
    assert valid() in seen
    monkeypatch.setattr(price_cache, "version", lambda _: "1.1")
    seen.add(valid())
    os.utime(package / "data.py", ns=(1, 1))
    seen.add(valid())
    (package / "data.py").write_text("prices = 22\n")
    os.utime(package / "data.py", ns=(1, 1))
    seen.add(valid())
    ours.write_text("changed")
    seen.add(valid())
    assert len(seen) == 6
    assert "priced_by" not in sys.modules


@pytest.fixture
def own_snapshot() -> Iterator[None]:
    """A program that has set prices of its own."""
    set_custom_snapshot(DataSnapshot(providers=list(providers), from_auto_update=False))
    yield
    set_custom_snapshot(None)


def test_prices_that_a_program_has_set_are_used_and_not_kept(own_snapshot: None, folder: Path) -> None:
    assert get_snapshot().providers is not providers
    price = Tariff(f"{OPENAI}/of-a-program").of("gpt-5.4-mini")
    assert price is not None
    assert not folder.exists()


def test_prices_of_the_package_are_kept(folder: Path) -> None:
    price = Tariff(f"{OPENAI}/of-the-package").of("gpt-5.4-mini")
    assert price is not None
    (kept,) = json.loads((folder / price_cache.NAME).read_bytes().partition(b"\n")[2]).values()
    assert Price.from_json(kept) == price
