"""Where prompts are found."""

from pathlib import Path

import pytest

from batchrun.errors import PromptError
from batchrun.prompts import available, default_places, load


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path, Path]:
    near, far = tmp_path / "near", tmp_path / "far"
    near.mkdir()
    far.mkdir()
    (near / "hello.prompty").write_text("---\ndescription: near\n---\nuser:\nHi {{ who }}")
    (far / "hello.md").write_text("far {{ text }}")
    (far / "other.prompt.yml").write_text("messages: [{role: user, content: '{{ b }}{{ a }}'}]")
    (far / "broken.prompty").write_text("---\nnmae: x\n---\nhi")
    (far / "notes.json").write_text("{}")
    (far / ".hidden.md").write_text("x")
    return near, tmp_path / "absent", far


def test_the_first_place_wins(places: tuple[Path, ...]):
    assert load("hello", places=places).description == "near"
    assert load("hello.md", places=places).messages[0].template == "far {{ text }}"


def test_a_path_is_read_wherever_it_lies(tmp_path: Path, places: tuple[Path, ...]):
    path = tmp_path / "my own.txt"
    path.write_bytes(b"\xef\xbb\xbfHi {{ text }}")
    prompt = load(str(path), places=places)
    assert (prompt.name, prompt.path, prompt.messages[0].template) == ("my own", str(path), "Hi {{ text }}")


def test_a_file_here_is_found_by_its_name(tmp_path: Path, places: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "here.md").write_text("here")
    (tmp_path / "Plain").write_text("plain")
    monkeypatch.chdir(tmp_path)
    assert load("here.md", places=places).name == "here"
    assert load("Plain", places=places).name == "Plain"


def test_a_text_with_variables_is_a_prompt_itself(places: tuple[Path, ...]):
    prompt = load("Is this spam?\n{{ text }} Answer yes or no.", places=places)
    assert (prompt.name, prompt.messages[0].role) == ("prompt", "user")
    assert prompt.messages[0].template == "Is this spam?\n{{ text }} Answer yes or no."
    with pytest.raises(PromptError, match=r"^prompt:1:"):
        load("{{ text", places=places)


def test_an_unknown_name_suggests_the_nearest(places: tuple[Path, ...]):
    with pytest.raises(PromptError, match="there is no prompt `helo`; did you mean `hello`") as caught:
        load("helo", places=places)
    assert caught.value.hint is not None
    assert "broken, hello, other" in caught.value.hint


@pytest.mark.parametrize("text", ["Summarise this in a few words. ", "Summarise this and/or translate it. "])
def test_a_text_without_variables_is_told_what_it_lacks(text: str, places: tuple[Path, ...]):
    for times in (1, 20):
        with pytest.raises(PromptError, match="there is no prompt") as caught:
            load(text * times, places=places)
        assert len(str(caught.value)) < 130
        assert "a text with `{{ variables }}` is itself a prompt" in (caught.value.hint or "")


@pytest.mark.parametrize("name", ["./absent.prompty", "no/such.md", "."])
def test_a_path_that_cannot_be_read_is_a_prompt_error(name: str, places: tuple[Path, ...]):
    with pytest.raises(PromptError):
        load(name, places=places)


def test_a_file_that_is_not_utf8_is_a_prompt_error(tmp_path: Path):
    (tmp_path / "latin.md").write_bytes("grün".encode("latin-1"))
    with pytest.raises(PromptError, match="not UTF-8"):
        load(str(tmp_path / "latin.md"))


def test_the_list_shows_every_prompt_once_and_what_is_wrong_with_broken_ones(places: tuple[Path, ...]):
    listed = {item.name: item for item in available(places)}
    assert list(listed) == ["broken", "hello", "other"]
    assert listed["hello"].variables == ("who",)
    assert listed["other"].variables == ("a", "b")
    assert "did you mean `name`" in (listed["broken"].error or "")


def test_translate_and_summarize_come_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert {"summarize", "translate"} <= {item.name for item in available()}
    assert all(item.error is None for item in available(default_places()[-1:]))
    with pytest.raises(PromptError, match="did you mean `translate`"):
        load("translat")
