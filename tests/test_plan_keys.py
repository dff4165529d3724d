"""Keys, headers and addresses: nothing secret is shown, stored or sent where it should not be."""

import base64
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchrun.errors import RefusedError
from batchrun.plan.address import check_base_url, check_secrecy, is_loopback
from batchrun.plan.keys import Key, find_key
from batchrun.plan.profiles import BUILT_IN, Profile
from batchrun.plan.tables import expand_headers, secrets_of
from batchrun.secrecy import Mask

CANARY = "sk-canary-0123456789abcdef"
OWN = Profile(name="own", base_url="https://h/v1", api_key_env="OWN_KEY")


def test_a_key_is_trimmed_and_never_shows_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWN_KEY", f"  {CANARY}\r\n")
    key = find_key(OWN, needed=True)
    assert key == Key(CANARY, "$OWN_KEY")
    assert CANARY not in repr(key)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{CANARY}\nrest", "a blank or a line break inside"),
        (f"Bearer {CANARY}", "a blank or a line break inside"),
        (f"{CANARY}é", "characters that cannot be sent"),
        (f"{CANARY}\x07", "characters that cannot be sent"),
        (f'"{CANARY}"', "quotes around it"),
        ("x" * 20_000, "too long"),
    ],
)
def test_a_key_that_cannot_be_sent_is_refused_without_showing_it(
    monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    monkeypatch.setenv("OWN_KEY", text)
    with pytest.raises(RefusedError) as refused:
        find_key(OWN, needed=True)
    assert message in refused.value.message
    assert "canary" not in f"{refused.value.message}{refused.value.hint}"


def test_a_key_comes_from_a_file_or_a_command(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text(f"{CANARY}\n")
    from_file = Profile(name="own", api_key_file=str(path))
    from_command = Profile(name="own", api_key_command=(sys.executable, "-c", f"print({CANARY!r})"))
    found = [find_key(own, needed=True) for own in (from_file, from_command)]
    assert [key.value for key in found if key] == [CANARY, CANARY]


@pytest.mark.parametrize(
    "profile",
    [
        Profile(name="own", api_key_file="/nowhere/key"),
        Profile(name="own", api_key_file="/dev/null"),
        Profile(name="own", api_key_command=("/nowhere/command",)),
        Profile(name="own", api_key_command=(sys.executable, "-c", "raise SystemExit(3)")),
        Profile(name="own", api_key_command=(sys.executable, "-c", "pass")),
    ],
)
def test_a_key_that_cannot_be_read_is_refused(profile: Profile) -> None:
    with pytest.raises(RefusedError):
        find_key(profile, needed=False)


@given(st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126), min_size=8, max_size=60), st.integers(0, 9))
def test_a_masked_text_holds_neither_the_key_nor_its_base64(secret: str, shift: int) -> None:
    around = "u" * shift + ":"
    encoded = base64.b64encode((around + secret).encode()).decode()
    mask = Mask([secret])
    masked = mask.text(f"a {secret} b {encoded} c {base64.b64encode(secret.encode()).decode()}")
    assert secret not in masked.replace("[key]", "")
    assert masked.count("[key]") >= 3


def test_placeholders_are_not_masked() -> None:
    assert Mask(["none", ""]).text("none of it") == "none of it"


def test_header_references_are_expanded_only_to_send() -> None:
    headers = {"Authorization": "Bearer ${MY_TOKEN}", "X-Team": "a"}
    assert expand_headers(headers, {"MY_TOKEN": f" {CANARY}\n"})["Authorization"] == f"Bearer {CANARY}"
    assert secrets_of(headers, {"MY_TOKEN": CANARY}) == (CANARY,)
    with pytest.raises(RefusedError, match="not set"):
        expand_headers(headers, {})
    with pytest.raises(RefusedError, match="cannot be sent") as refused:
        expand_headers(headers, {"MY_TOKEN": f"{CANARY}\nX: y"})
    assert "canary" not in refused.value.message


@pytest.mark.parametrize(
    ("url", "loopback"),
    [
        ("http://127.0.0.1:8000/v1", True),
        ("http://127.9.9.9/v1", True),
        ("http://[::1]:80/v1", True),
        ("http://localhost/v1", True),
        ("http://a.localhost./v1", True),
        ("", True),
        ("http://0.0.0.0/v1", False),
        ("http://localhost.evil.com/v1", False),
        ("http://127.0.0.1.evil.com/v1", False),
        ("http://10.0.0.1/v1", False),
    ],
)
def test_a_key_travels_unencrypted_on_this_machine_only(url: str, loopback: bool) -> None:
    assert is_loopback(url) == loopback
    check_secrecy(url, secret=False, insecure_http=False)
    check_secrecy(url, secret=True, insecure_http=True)
    if loopback:
        check_secrecy(url, secret=True, insecure_http=False)
    else:
        with pytest.raises(RefusedError, match="unencrypted"):
            check_secrecy(url, secret=True, insecure_http=False)


@pytest.mark.parametrize(
    "url",
    ["", "api.openai.com/v1", "ftp://h/v1", "https://", "https://u:p@h/v1", "https://h/v1?a=b", "https://h:99999/v1",
     "https://h/v1/chat/completions", "https://[::1/v1", "https://h o/v1", "https://h/v1\x1b[2J"],
)  # fmt: skip
def test_an_address_that_cannot_work_is_refused(url: str) -> None:
    with pytest.raises(RefusedError):
        check_base_url(url)


@pytest.mark.parametrize("rest", [f"?api_key={CANARY}", f"#{CANARY}", f"#a?{CANARY}"])
def test_a_key_in_an_address_is_not_shown(rest: str) -> None:
    with pytest.raises(RefusedError) as refused:
        check_base_url(f"https://h/v1{rest}")
    assert refused.value.message == "base URL is not a plain address: https://h/v1…"


def test_built_in_addresses_are_in_order() -> None:
    for profile in BUILT_IN.values():
        if profile.base_url:
            assert check_base_url(profile.base_url + "/") == profile.base_url
            check_secrecy(profile.base_url, secret=True, insecure_http=False)
