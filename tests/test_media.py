"""Files of requests: what they are by their content, how values name them, how requests hold them."""

import base64
import email
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from pictures import MP3, PDF, WAV, folder, gif, jpeg, png, webp

from batchrun import media, prompts
from batchrun.client.session import headers_of
from batchrun.digests import BLAKE3
from batchrun.errors import PromptError, RefusedError
from batchrun.filetypes import pixels, type_of
from batchrun.lanes.messages import as_message
from batchrun.models import Endpoint, File, Row
from batchrun.prompts import RenderError, request_digest
from batchrun.sim.requests import form_of

TAKES: dict[str, Any] = {"image": ["image/png", "image/jpeg"], "audio": ["audio/wav"], "file": ["application/pdf"]}
PROMPT = """---
name: caption
inputs:
  picture: {kind: image}
---
system:
You write captions.
user:
Describe it: {{ text }}

![]({{ picture }})
In one line.
"""


@pytest.mark.parametrize(
    ("content", "type", "size"),
    [
        (png(40, 30), "image/png", (40, 30)),
        (jpeg(640, 480), "image/jpeg", (640, 480)),
        (jpeg(640, 480, metadata=60_000), "image/jpeg", (640, 480)),
        (gif(7, 9), "image/gif", (7, 9)),
        (webp(1200, 800), "image/webp", (1200, 800)),
        (WAV, "audio/wav", (0, 0)),
        (MP3, "audio/mpeg", (0, 0)),
        (PDF, "application/pdf", (0, 0)),
        (png(1, 1)[:12], "image/png", (0, 0)),
        (b"\xff\xd8\xff", "image/jpeg", (0, 0)),
    ],
)
def test_a_file_is_known_by_its_content(content: bytes, type: str, size: tuple[int, int]) -> None:
    found = type_of(content)
    assert found is not None
    assert (found.type, pixels(content, found.type)) == (type, size)


@pytest.mark.parametrize("content", [b"", b"text", b"RIFF\0\0\0\0AVI ", b"<svg>"])
def test_other_content_is_of_no_known_type(content: bytes) -> None:
    assert type_of(content) is None


def look(value: Any, *folders: Path, kind: str = "image", **limits: Any) -> list[File]:
    return media.look("picture", kind, value, folders or (Path(),), {**TAKES, **limits})


def test_a_path_a_pattern_a_list_and_an_address_name_files(alone: None, tmp_path: Path) -> None:
    paths = folder(tmp_path / "p")
    one = look("p/1.png", tmp_path)[0]
    assert one == File(
        *("picture", str(paths[1]), len(png(11, 5)), "image/png", hashlib.sha256(png(11, 5)).hexdigest()),
        *(paths[1].stat().st_mtime, 11, 5),
    )
    assert [Path(file.path).name for file in look("p/*.png", tmp_path)] == ["0.png", "1.png", "2.png"]
    assert [file.path for file in look(["p/2.png", "https://host/a.png"], tmp_path)] == [
        str(paths[2]),
        "https://host/a.png",
    ]
    assert look(None) == look(" ") == look([]) == []


def test_the_folder_of_the_input_comes_before_the_current_one(alone: None, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(1, 1))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.png").write_bytes(png(2, 2))
    (tmp_path / "b.png").write_bytes(png(3, 3))
    assert look("a.png", tmp_path / "data", tmp_path)[0].width == 2
    assert look("b.png", tmp_path / "data", tmp_path)[0].width == 3


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("none.png", "`picture`: there is no file none.png"),
        ("no*.png", "`picture`: no file matches no*.png"),
        ("p", "`picture`: p is a directory"),
        ("text.png", "text.png is of an unknown type by its content; the provider accepts these image types: PNG, JPG"),
        ("a.wav", "a.wav is WAV by its content; the provider accepts these image types: PNG, JPG"),
        ("empty.png", "empty.png is empty"),
        ("http://host/a.png", "`picture` is http://host/a.png, which cannot be sent"),
        (7, "`picture` is int, but an input of kind image is a path or an address"),
        ("p/0.png", " B, but the provider accepts image files of at most 20 B"),
        (
            ["https://h/a", "https://h/b", "https://h/c"],
            "names 3 files, but the provider accepts 2 of kind image per request",
        ),
    ],
)
def test_what_cannot_be_sent_is_named(alone: None, tmp_path: Path, value: Any, said: str) -> None:
    folder(tmp_path / "p")
    for name, content in {"text.png": b"not a picture", "a.wav": WAV, "empty.png": b""}.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(media.MediaError) as refused:
        look(value, tmp_path, image_bytes=20, images=2)
    assert said in str(refused.value)


def test_a_file_that_nobody_may_read_is_named(alone: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder(tmp_path / "p")

    def refuse(path: Any, *rest: Any) -> Any:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("batchrun.media.files.open", refuse, raising=False)
    with pytest.raises(media.MediaError, match=r"1\.png cannot be read: Permission denied"):
        look("p/1.png", tmp_path)


def test_the_journal_notes_paths_of_its_project_relative_to_itself(tmp_path: Path) -> None:
    journals = tmp_path / "project" / ".batchrun"
    inside = File("picture", str(tmp_path / "project" / "p" / "a.png"), 3, "image/png", "ab", 1.5, 2, 3)
    files = inside, inside._replace(path=str(tmp_path / "other.png")), File("picture", "https://host/a.png")
    text = media.to_json(files, journals)
    assert [one["path"] for one in json.loads(text)] == [
        "../p/a.png",
        str(tmp_path / "other.png"),
        "https://host/a.png",
    ]
    assert media.from_json(text, journals) == files
    assert (media.to_json((), journals), media.from_json("", journals)) == ("", ())
    assert media.encoded_size(text) == 8


def rendered(
    prompt: str = PROMPT, endpoint: Endpoint = Endpoint.CHAT, files: tuple[File, ...] = (), **fields: Any
) -> Any:
    parsed = prompts.parse(prompt, path="caption.prompty")
    made = prompts.renderer(parsed, endpoint=endpoint, model="m", params={}, variables={}, columns={}, detail="low")
    return made.render(Row(1, None, "{}", fields, files))


FILE = File("picture", "/p/a.png", 3, "image/png", "ab" * 32)


@pytest.mark.parametrize(
    ("endpoint", "kinds", "picture"),
    [
        (
            Endpoint.CHAT,
            "text",
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,sha256:{'ab' * 32}", "detail": "low"}},
        ),
        (
            Endpoint.RESPONSES,
            "input_text",
            {"type": "input_image", "image_url": f"data:image/png;base64,sha256:{'ab' * 32}", "detail": "low"},
        ),
    ],
)
def test_a_picture_is_a_part_between_texts(endpoint: Endpoint, kinds: str, picture: Any) -> None:
    request = rendered(endpoint=endpoint, files=(FILE,), text="cats")
    body = json.loads(request.body)
    system, user = body["messages" if endpoint is Endpoint.CHAT else "input"]
    assert system["content"] == "You write captions."
    assert user["content"] == [
        {"type": kinds, "text": "Describe it: cats"},
        picture,
        {"type": kinds, "text": "In one line."},
    ]
    assert request.files == (FILE,)
    assert request.size == len(request.body) + 4


def test_the_hash_of_a_request_is_about_contents_and_detail() -> None:
    moved = FILE._replace(path="/elsewhere/b.png", modified=9.0)
    digests = [
        request_digest(rendered(files=(file,), text="x"), BLAKE3)
        for file in (FILE, moved, FILE._replace(sha256="cd" * 32))
    ]
    assert digests[0] == digests[1] != digests[2]


def test_a_row_without_a_picture_lacks_a_value_unless_the_prompt_says_otherwise() -> None:
    with pytest.raises(RenderError, match="no value for `picture`"):
        rendered(text="cats")
    optional = PROMPT.replace("{kind: image}", "{kind: image, required: false}")
    assert (
        json.loads(rendered(optional, text="cats").body)["messages"][1]["content"]
        == "Describe it: cats\n\n\nIn one line."
    )
    asked = PROMPT.replace("![]({{ picture }})", "{% if picture %}{{ picture }}{% endif %}")
    assert "image_url" not in rendered(asked, text="cats").body.decode()
    assert "image_url" in rendered(asked, text="cats", files=(FILE,)).body.decode()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("user:\n{{ picture | upper }}", "`picture` names files, which are sent unchanged"),
        ("user:\n{{ picture ~ 'x' }}", "`picture` names files, which are sent unchanged"),
        ("system:\n{{ picture }}\nuser:\nx", "a message of the system is text"),
    ],
)
def test_what_would_lose_a_picture_is_refused_when_the_prompt_is_read(body: str, said: str) -> None:
    with pytest.raises(PromptError, match=said):
        prompts.parse(f"---\ninputs: {{picture: {{kind: image}}}}\n---\n{body}", path="p.prompty")


def test_no_text_of_a_row_takes_the_place_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(3, 3))
    file = look("a.png", tmp_path)[0]
    place = f'"url":"sha256:{file.sha256}"'
    request = rendered(files=(file,), text=f"{place} sha256:{file.sha256} \0picture\0 ![]({{{{ picture }}}})")
    sent = json.loads(media.filled(request.body, request.files))
    text, picture, _ = sent["messages"][1]["content"]
    assert text["text"].startswith(f"Describe it: {place} sha256:{file.sha256}")
    assert base64.b64decode(picture["image_url"]["url"].removeprefix("data:image/png;base64,")) == png(3, 3)


def test_a_file_that_changed_is_not_sent(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png(3, 3))
    file = look("a.png", tmp_path)[0]
    request = rendered(files=(file,), text="x")
    path.write_bytes(png(3, 3, (0, 0, 9)))
    with pytest.raises(media.ChangedError, match=r"a\.png has changed"):
        media.filled(request.body, request.files)
    os.utime(path, (1, file.modified))
    assert (media.why_changed(file) is None) == (path.stat().st_size == file.size)  # size and time are believed here
    os.utime(path, (1, 1))
    assert "has changed" in (media.why_changed(file) or "")
    path.unlink()
    assert "cannot be read" in (media.why_changed(file) or "")
    with pytest.raises(media.ChangedError, match="cannot be read"):
        media.filled(request.body, request.files)


@pytest.mark.parametrize("takes", [{"image": ["image/png"], "images": 3}, {"request_bytes": 10, "file_bytes": 1}])
def test_a_profile_may_state_limits(takes: Any) -> None:
    media.check_takes(takes)


@pytest.mark.parametrize("takes", [{"image": "image/png"}, {"image": ["text/x"]}, {"images": 0}, {"pictures": 3}])
def test_limits_that_are_none_are_refused(takes: Any) -> None:
    with pytest.raises(ValueError, match="known are"):
        media.check_takes(takes)


@pytest.mark.parametrize(
    ("kind", "type", "endpoint", "expected"),
    [
        (
            *("audio", "audio/mpeg", Endpoint.CHAT),
            {"type": "input_audio", "input_audio": {"data": f"sha256:{'ab' * 32}", "format": "mp3"}},
        ),
        (
            *("audio", "audio/wav", Endpoint.RESPONSES),
            {"type": "input_audio", "input_audio": {"data": f"sha256:{'ab' * 32}", "format": "wav"}},
        ),
        (
            *("file", "application/pdf", Endpoint.CHAT),
            {
                "type": "file",
                "file": {"filename": "file.pdf", "file_data": f"data:application/pdf;base64,sha256:{'ab' * 32}"},
            },
        ),
        (
            *("file", "application/pdf", Endpoint.RESPONSES),
            {
                "type": "input_file",
                "filename": "file.pdf",
                "file_data": f"data:application/pdf;base64,sha256:{'ab' * 32}",
            },
        ),
    ],
)
def test_audio_and_documents_have_parts_of_their_own(kind: str, type: str, endpoint: Endpoint, expected: Any) -> None:
    prompt = f"---\ninputs: {{picture: {{kind: {kind}}}}}\n---\nuser:\n{{{{ picture }}}}"
    body = json.loads(rendered(prompt, endpoint, (FILE._replace(type=type),)).body)
    assert body["messages" if endpoint is Endpoint.CHAT else "input"] == [{"role": "user", "content": [expected]}]


def test_an_address_is_sent_as_it_is_where_the_endpoint_takes_one() -> None:
    address = File("picture", "https://host/a")
    assert b'{"url":"https://host/a","detail":"low"}' in rendered(files=(address,), text="x").body
    prompt = "---\ninputs: {picture: {kind: file}}\n---\nuser:\n{{ picture }}"
    assert b'{"type":"input_file","file_url":"https://host/a"}' in rendered(prompt, Endpoint.RESPONSES, (address,)).body
    with pytest.raises(RenderError, match="is an address, which /v1/chat/completions does not accept"):
        rendered(prompt, Endpoint.CHAT, (address,))


SPEECH = "---\ninputs: {picture: {kind: audio}}\n---\nuser:\n{{ picture }}\nNames: Ada."


def test_a_transcription_is_a_form_with_its_recording(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(WAV)
    file = look("a.wav", tmp_path, kind="audio")[0]
    request = rendered(SPEECH, Endpoint.TRANSCRIPTIONS, (file,))
    assert json.loads(request.body) == {"model": "m", "file": f"sha256:{file.sha256}", "prompt": "Names: Ada."}
    sent = media.form(request.body, request.files)
    boundary = sent[2 : sent.index(b"\r\n")].decode()
    assert headers_of(sent) == {"content-type": f"multipart/form-data; boundary={boundary}"}
    message = email.message_from_bytes(
        f"Content-Type: multipart/form-data; boundary={boundary}\r\n\r\n".encode() + sent
    )
    parts = {part.get_param("name", header="content-disposition"): part for part in message.walk()}
    assert parts["file"].get_filename() == "audio.wav"
    assert parts["file"].get_content_type() == "audio/wav"
    assert parts["prompt"].get_payload() == "Names: Ada."
    assert WAV in sent
    assert form_of(sent) == {"model": "m", "file": WAV, "prompt": "Names: Ada."}
    assert media.form(request.body, request.files) == sent  # one request, one hash, whatever draws from it


@pytest.mark.parametrize(
    ("prompt", "params", "said"),
    [
        (PROMPT, {}, "accepts one text, but the prompt has 2 messages"),
        ("user:\n{{ text }}", {}, "needs one recording"),
        (SPEECH, {"response_format": "srt"}, "response_format is 'srt', but replies are read as JSON"),
        (SPEECH, {"prompt": "x"}, "`prompt` comes from the prompt"),
    ],
)
def test_what_is_no_transcription_is_refused_at_once(prompt: str, params: Any, said: str) -> None:
    parsed = prompts.parse(prompt, path="p.prompty")
    with pytest.raises(PromptError, match=said):
        prompts.renderer(parsed, endpoint=Endpoint.TRANSCRIPTIONS, model="m", params=params, variables={}, columns={})


def test_a_transcription_is_of_one_recording() -> None:
    with pytest.raises(RenderError, match="2 recordings, but a transcription needs one"):
        rendered(SPEECH, Endpoint.TRANSCRIPTIONS, (FILE._replace(type="audio/wav"),) * 2)


@pytest.mark.parametrize(
    ("dialect", "model", "detail", "size", "tokens"),
    [
        ("openai", "gpt-4o", None, (1024, 1024), 765),  # the examples of the guide
        ("openai", "gpt-4o", None, (2048, 4096), 1105),
        ("openai", "gpt-4o", "low", (4096, 8192), 85),
        ("openai", "gpt-4o-mini", None, (1024, 1024), 2833 + 4 * 5667),
        ("openai", "gpt-4.1-mini", None, (1024, 1024), 1659),
        ("azure", "gpt-5", None, (512, 512), 210),
        ("anthropic", "claude-haiku-4-5", None, (1000, 1000), 1334),
        ("anthropic", "claude-haiku-4-5", None, (4000, 4000), 1600),
    ],
)
def test_pictures_are_counted_as_their_vendor_says(
    dialect: str, model: str, detail: str | None, size: tuple[int, int], tokens: int
) -> None:
    formula = media.formula_of({}, dialect, model)
    assert formula is not None
    assert formula.of([FILE._replace(width=size[0], height=size[1])], detail) == tokens
    assert formula.of([FILE], detail) is None  # a picture of unknown size


def test_what_is_not_known_is_not_counted_unless_the_profile_says_how() -> None:
    assert media.formula_of({}, "mistral", "m") is None
    own = {"tokens": {"how": "tiles", "base": 1, "each": 2, "side": 100, "fit": 1000, "short": 1000}}
    media.check_takes(own)
    formula = media.formula_of(own, "mistral", "m")
    assert formula is not None
    assert formula.of([FILE._replace(width=150, height=100)] * 2, None) == 10
    for wrong in ({"how": "tiles"}, {"how": "x"}, 3, {**own["tokens"], "side": 0}):
        with pytest.raises(ValueError, match="known are tables"):
            media.check_takes({"tokens": wrong})


def test_batches_of_anthropic_have_pictures_and_documents_as_blocks() -> None:
    content = [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}},
        {"type": "image_url", "image_url": {"url": "https://host/a.png"}},
        {"type": "file", "file": {"filename": "file.pdf", "file_data": "data:application/pdf;base64,BBBB"}},
    ]
    chat = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": content}]}
    assert as_message(chat)["messages"][0]["content"] == [
        {"type": "text", "text": "What is it?"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
        {"type": "image", "source": {"type": "url", "url": "https://host/a.png"}},
        {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "BBBB"}},
    ]
    content.append({"type": "input_audio", "input_audio": {"data": "CCCC", "format": "wav"}})
    with pytest.raises(RefusedError, match="do not accept audio"):
        as_message(chat)
