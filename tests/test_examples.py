"""The example files have the form that their README states."""

import csv
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from batchrun import prompts, rows
from batchrun.models import Endpoint, Kind, Row
from batchrun.plan.config import read_files
from batchrun.plan.settings import OPTIONS

EXAMPLES = Path(__file__).parent.parent / "examples"


def rows_of(name: str) -> list[dict[str, Any]]:
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.split("\n") if line]


def read(name: str, *, has_prompt: bool) -> tuple[Kind, list[Any]]:
    source = rows.open_input(str(EXAMPLES / name), id_column=None, has_prompt=has_prompt, spool=None)
    return source.kind, list(source)


def reviews() -> list[dict[str, str]]:
    with (EXAMPLES / "reviews.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream, strict=True))


@pytest.mark.parametrize("name", ["udhr.jsonl", "passages.jsonl", "requests.jsonl"])
def test_lines_end_in_one_newline_and_ids_are_unique(name: str):
    data = (EXAMPLES / name).read_bytes()
    assert data.endswith(b"}\n")
    assert b"\r" not in data
    keys = [row.get("custom_id") or row["id"] for row in rows_of(name)]
    assert len(set(keys)) == len(keys)


def test_the_declaration_has_its_thirty_articles_in_order():
    records = rows_of("udhr.jsonl")
    assert [(row["id"], row["title"]) for row in records] == [(f"article-{n}", f"Article {n}") for n in range(1, 31)]
    assert all(row.keys() == {"id", "title", "text"} for row in records)
    assert records[0]["text"].startswith("All human beings are born free and equal in dignity and rights.")
    assert records[29]["text"].endswith("any of the rights and freedoms set forth herein.")


def test_numbered_paragraphs_of_an_article_count_up():
    numbered = [row["text"].split("\n") for row in rows_of("udhr.jsonl") if "\n" in row["text"]]
    assert len(numbered) == 13
    for paragraphs in numbered:
        assert [paragraph.split(" ")[0] for paragraph in paragraphs] == [f"{n}." for n in range(1, len(paragraphs) + 1)]


def test_passages_are_old_enough_and_long_enough():
    records = rows_of("passages.jsonl")
    assert len(records) == 12
    assert all(row.keys() == {"id", "title", "author", "year", "text"} for row in records)
    assert all(row["year"] < 1928 for row in records)
    assert all(150 <= len(row["text"].split()) <= 400 for row in records)


def test_requests_are_openai_batch_lines_for_three_endpoints():
    records = rows_of("requests.jsonl")
    assert all(row.keys() == {"custom_id", "method", "url", "body"} for row in records)
    assert {row["method"] for row in records} == {"POST"}
    assert {Endpoint(row["url"]) for row in records} == {Endpoint.CHAT, Endpoint.EMBEDDINGS, Endpoint.RESPONSES}
    assert all(row["body"]["model"] for row in records)


def test_reviews_hold_line_breaks_quotes_and_semicolons():
    records = reviews()
    assert len(records) == 12
    assert all(row.keys() == {"id", "product", "stars", "review"} and all(row.values()) for row in records)
    for character in '\n";,':
        assert any(character in row["review"] for row in records)


def test_the_classify_prompt_asks_for_columns_that_the_reviews_have_and_adds_none_of_them():
    _, front, body = (EXAMPLES / "classify.prompty").read_text(encoding="utf-8").split("---\n", 2)
    head = yaml.safe_load(front)
    columns = reviews()[0].keys()
    assert set(re.findall(r"{{ (\w+) }}", body)) == head["inputs"].keys() <= columns
    schema = head["outputs"]
    assert schema["properties"].keys() == set(schema["required"]) == {"sentiment", "topics", "language"}
    assert not schema["properties"].keys() & columns


def test_the_configuration_names_keys_but_holds_none():
    config = tomllib.loads((EXAMPLES / "batchrun.toml").read_text(encoding="utf-8"))
    assert config["profile"] in config["profiles"]
    assert {profile.get("api_key_env") for profile in config["profiles"].values()} == {"HOUSE_LLM_KEY", None}


def test_the_readme_has_a_line_for_every_file():
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    files = {path.name for path in EXAMPLES.iterdir() if path.is_file()} - {"README.md"}
    assert {name for name in files if f"| `{name}` |" not in text} == set()


@pytest.mark.parametrize(("name", "count"), [("udhr.jsonl", 30), ("passages.jsonl", 12), ("reviews.csv", 12)])
def test_batchrun_takes_every_row_with_its_id(name: str, count: int):
    kind, taken = read(name, has_prompt=True)
    assert kind is Kind.ROWS
    assert [type(row) for row in taken] == [Row] * count
    assert all(row.key == row.fields["id"] for row in taken)


def test_batchrun_takes_the_requests_as_a_batch_file():
    kind, taken = read("requests.jsonl", has_prompt=False)
    assert kind is Kind.BATCH
    assert [row.key for row in taken] == [row["custom_id"] for row in rows_of("requests.jsonl")]


def test_batchrun_loads_the_prompt_and_the_configuration():
    prompt = prompts.load(str(EXAMPLES / "classify.prompty"))
    assert prompt.variables == {"product", "review"}
    assert prompt.outputs is not None
    profiles = [file.profiles for file in read_files(OPTIONS, EXAMPLES) if file.path.parent == EXAMPLES]
    assert [sorted(tables) for tables in profiles] == [["house", "house-night", "openai"]]
