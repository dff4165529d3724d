"""Where the functions of `--post` run, and who may say so."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batchrun.errors import RefusedError
from batchrun.models import Endpoint, Kind
from batchrun.plan import signed_settings
from batchrun.plan.config import read_files
from batchrun.plan.record import Plan
from batchrun.plan.settings import OPTIONS, settings_of


@pytest.fixture(autouse=True)
def place(alone: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.mark.parametrize(
    ("choices", "workers", "ray"),
    [
        ({}, None, None),
        ({"workers": "auto"}, None, None),
        ({"workers": "3"}, 3, None),
        ({"workers": "ray"}, None, "auto"),
        ({"workers": "RAY:8", "ray": "auto"}, 8, "auto"),
        ({"workers": "ray", "ray": "10.0.0.1:6379"}, None, "10.0.0.1:6379"),
        ({"workers": "ray", "ray": "[::1]:6379"}, None, "[::1]:6379"),
    ],
)
def test_workers_are_here_or_on_a_cluster(choices: dict[str, Any], workers: int | None, ray: str | None) -> None:
    made = signed_settings.post_of_new_run(settings_of(choices))
    assert (made["workers"], made["ray"]) == (workers, ray)


@pytest.mark.parametrize(
    "choices",
    [{"workers": "ray:0"}, {"workers": "raylet"}, {"workers": "ray:"}, {"workers": "-1"}]
    + [{"workers": "ray", "ray": address} for address in ("6379", "head", ":6379", "head:", "head:x", "he ad:1")],
)
def test_what_is_no_number_and_no_address_is_refused(choices: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        settings_of(choices)


def test_a_cluster_without_use_is_refused() -> None:
    with pytest.raises(RefusedError, match="--ray is the cluster of --workers ray"):
        signed_settings.post_of_new_run(settings_of({"ray": "10.0.0.1:6379", "workers": 2}))


NEEDED: dict[str, Any] = dict.fromkeys(
    ("id_column", "prompt_name", "prompt_path", "prompt_source", "model", "api_key_env")
)
NEEDED |= {"kind": Kind.ROWS, "input": "in.jsonl", "input_format": "jsonl", "endpoint": Endpoint.CHAT, "profile": "sim"}
NEEDED |= {"output": "out.jsonl", "output_format": "jsonl", "output_column": "output", "base_url": ""}


def plan(**choices: Any) -> Plan:
    """A plan as it is journaled on this machine, with these choices."""
    settings = settings_of(choices)
    return Plan(post=settings.post, **NEEDED, **signed_settings.post_of_new_run(settings))


ON_CLUSTER = {"post": "/f.py:score", "workers": "ray:2", "ray": "10.0.0.1:6379"}


@pytest.mark.parametrize(
    ("typed", "workers", "ray"),
    [
        ({}, 2, "10.0.0.1:6379"),
        ({"workers": "ray"}, None, "10.0.0.1:6379"),
        ({"ray": "10.0.0.2:6379"}, 2, "10.0.0.2:6379"),
        ({"workers": "4"}, 4, None),
        ({"post": "strip"}, 2, "10.0.0.1:6379"),
        ({"workers": "ray:3", "ray": "auto", "post": "strip"}, 3, "auto"),
    ],
)
def test_going_on_keeps_the_cluster_until_another_is_typed(
    typed: dict[str, Any], workers: int | None, ray: str | None
) -> None:
    before = plan(**ON_CLUSTER)
    changes = signed_settings.post_on_resume(before, settings_of(typed), typed)
    assert (changes["workers"], changes["ray"]) == (workers, ray)
    functions = settings_of(typed).post if "post" in typed else before.post
    again = signed_settings.post_on_resume(replace(before, post=functions, **changes), settings_of({}), ())
    assert (again["workers"], again["ray"]) == (workers, ray)  # it is vouched for


@pytest.mark.parametrize(
    ("choices", "typed"),
    [
        (ON_CLUSTER, {}),
        (ON_CLUSTER, {"post": "strip"}),
        (ON_CLUSTER, {"workers": "ray:5"}),
        (ON_CLUSTER, {"ray": "auto"}),
        (ON_CLUSTER, {"workers": "0"}),
        ({**ON_CLUSTER, "post": "strip"}, {}),
    ],
)
def test_a_journal_from_elsewhere_sends_no_reply_to_its_cluster(
    choices: dict[str, Any], typed: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = plan(**choices)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "elsewhere"))
    with pytest.raises(RefusedError, match="not chosen on this machine") as refused:
        signed_settings.post_on_resume(found, settings_of(typed), typed)
    assert "--workers ray --ray 10.0.0.1:6379" in (refused.value.hint or "")


def test_a_journal_from_elsewhere_is_used_with_a_cluster_that_is_typed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = plan(**ON_CLUSTER)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "elsewhere"))
    typed = {"post": "strip", "ray": "auto"}
    assert signed_settings.post_on_resume(found, settings_of(typed), typed)["ray"] == "auto"


@pytest.mark.parametrize("line", ['ray = "10.0.0.1:6379"', 'workers = "ray"', 'workers = "Ray:2"', "senders = 2"])
def test_a_directory_may_not_say_where_replies_go(line: str, tmp_path: Path) -> None:
    (tmp_path / "batchrun.toml").write_text(line + "\n", encoding="utf-8")
    with pytest.raises(RefusedError, match="a directory may not select where requests and replies are sent"):
        read_files(OPTIONS)


def test_what_a_killed_process_of_the_same_number_left_is_no_obstacle(tmp_path: Path) -> None:
    """In containers that share a state directory numbers repeat."""
    left = tmp_path / "state" / "batchrun" / f"seal.{os.getpid()}"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    settings = settings_of({"post": ("own.py:check",)})
    made = signed_settings.post_of_new_run(settings)
    assert signed_settings.is_signed(settings.post, made["post_seal"], None)
    assert [path.name for path in left.parent.iterdir()] == ["seal"]


def test_a_secret_that_cannot_be_kept_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "state").write_text("a file where the directory would be")
    made = signed_settings.post_of_new_run(settings_of({"post": ("own.py:check",)}))
    assert made["post_seal"] is None
    assert "functions and clusters are not signed" in caplog.text
