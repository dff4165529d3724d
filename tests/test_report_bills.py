"""What a run was charged by kind of token, and where that is not said."""

from pathlib import Path
from typing import Any

import pytest
from engine import Provider, Stage, exchange, fault, garbage, ok, reply_body

from batchrun.journal import Reader
from batchrun.models import Fault
from batchrun.pricing import USD
from batchrun.report.bills import Kinds, kinds

PRICED: dict[str, Any] = {"input_price": 1.0, "output_price": 10.0, "cached_price": 0.25}
IN, CACHED, OUT = USD // 10**6, USD // (4 * 10**6), USD // 10**5

pytestmark = pytest.mark.usefixtures("no_waiting")


def of(stage: Stage) -> Kinds | None:
    with Reader.open(stage.path) as reader:
        found = kinds(reader)
        assert found is None or sum(found) == reader.totals.cost
        return found


async def test_the_parts_are_the_sum(tmp_path: Path) -> None:
    body = reply_body("hi").replace(
        b'"prompt_tokens":7', b'"prompt_tokens":7,"prompt_tokens_details":{"cached_tokens":4}'
    )
    stage = Stage(tmp_path, 3, **PRICED)
    await stage.play(Provider({"row 2": [lambda _: exchange(200, body)]}))
    assert of(stage) == Kinds(17 * IN, 4 * CACHED, 9 * OUT, 0)
    assert of(stage).text == "$0.000017 input, $0.0000010 cached input, $0.000090 output"  # pyright: ignore[reportOptionalMemberAccess]


async def test_what_states_no_usage_is_a_part_of_its_own(tmp_path: Path) -> None:
    stage = Stage(tmp_path, 3, **PRICED)
    await stage.play(Provider({"row 2": [fault(Fault.RESET), garbage(b"<html>"), ok()]}))
    found = of(stage)
    assert found is not None
    assert found[:3] == (21 * IN, 0, 9 * OUT)
    assert found.other > stage.totals.cost_maybe > 0


async def test_parts_that_would_not_add_up_are_not_told(tmp_path: Path) -> None:
    stage = Stage(tmp_path, 2, reserve=0.001, **PRICED)
    await stage.play(Provider())
    assert of(stage) is None


async def test_other_prices_than_were_charged_tell_nothing(tmp_path: Path) -> None:
    stage = Stage(tmp_path, 2, **PRICED)
    await stage.play(Provider(), output_price=20.0)
    assert of(stage) is None


async def test_without_a_price_there_are_no_parts(tmp_path: Path) -> None:
    stage = Stage(tmp_path, 2)
    await stage.play(Provider())
    assert of(stage) is None
