"""SubRip and WebVTT, read again by srt and webvtt-py."""

import io
import re

import pytest
import srt
import webvtt
from documents import assert_unchanged, rewritten, segments, texts, variants
from hypothesis import given
from hypothesis import strategies as st

from batchrun.documents import Document, DocumentError

SRT = """1
00:00:01,000 --> 00:00:02,500
Hello <i>there</i>.

7
00:00:03,000 --> 00:00:04,000 X1:40 X2:600
{\\an8}How are
you?


8
00:00:04,500 --> 00:00:04,900

9
00:00:05,000 --> 00:00:06,000
42
"""
VTT = """WEBVTT - made by hand
Kind: captions

STYLE
::cue { color: red }

NOTE a note
of two lines

intro
00:01.000 --> 00:02.000 align:start position:10%
<v Ann>Hello &amp; welcome</v>

00:00:03.000 --> 00:00:04.000
one
two

NOTE the end
"""
words = (
    st.text(st.sampled_from("ab é{}<i>&,.?7ж日"), min_size=1)
    .map(str.strip)
    .filter(lambda text: text and not text.isdigit())
)
cue_texts = st.lists(words, min_size=1, max_size=3).map("\n".join)


def upper(text: str) -> str:
    return f"«{text}»"


@pytest.mark.parametrize("data", variants(SRT))
def test_an_srt_file_comes_back_with_its_texts_replaced_and_nothing_else(data: bytes):
    assert_unchanged("srt", data)
    assert texts("srt", data) == ["Hello <i>there</i>.", "{\\an8}How are\nyou?", "42"]
    before = list(srt.parse(data.decode("utf-8-sig").replace("\r\n", "\n")))
    after = list(srt.parse(rewritten("srt", data, upper).decode("utf-8-sig").replace("\r\n", "\n")))
    # srt takes one of two blank lines for part of the text
    assert [cue.content.rstrip() for cue in after] == [
        upper(cue.content.rstrip()) if cue.content else "" for cue in before
    ]
    assert [cue[:3] for cue in map(times, after)] == [cue[:3] for cue in map(times, before)]
    assert re.sub("[«»]", "", rewritten("srt", data, upper).decode()) == data.decode()


def times(cue: srt.Subtitle) -> tuple:
    return cue.index, cue.start, cue.end, cue.proprietary


@pytest.mark.parametrize("data", variants(VTT))
def test_a_vtt_file_comes_back_with_its_texts_replaced_and_nothing_else(data: bytes):
    assert_unchanged("vtt", data)
    assert texts("vtt", data) == ["<v Ann>Hello &amp; welcome</v>", "one\ntwo"]
    new = rewritten("vtt", data, str.swapcase)
    before, after = (webvtt.from_buffer(io.StringIO(text.decode().replace("\r\n", "\n"))) for text in (data, new))
    assert [cue.raw_text for cue in after] == [cue.raw_text.swapcase() for cue in before]
    assert [(cue.start, cue.end, cue.identifier) for cue in after] == [
        (cue.start, cue.end, cue.identifier) for cue in before
    ]
    assert b"NOTE a note" in new
    assert b"align:start position:10%" in new


@given(st.lists(st.tuples(cue_texts, cue_texts), min_size=1, max_size=8), st.booleans(), st.booleans())
def test_generated_cues_have_exactly_the_new_texts(pairs: list[tuple[str, str]], crlf: bool, vtt: bool):
    mark = "." if vtt else ","
    cues = [f"{n}\n00:00:{n:02}{mark}000 --> 00:00:{n:02}{mark}900\n{old}\n" for n, (old, _) in enumerate(pairs, 1)]
    text = ("WEBVTT\n\n" if vtt else "") + "\n".join(cues)
    data = (text.replace("\n", "\r\n") if crlf else text).encode()
    format = "vtt" if vtt else "srt"
    assert_unchanged(format, data)
    assert texts(format, data) == [old for old, _ in pairs]
    new = iter([new for _, new in pairs])
    assert texts(format, rewritten(format, data, lambda _: next(new))) == [new for _, new in pairs]


def test_a_cue_that_is_put_in_front_leaves_the_names_of_all_others():
    added = "1\n00:00:00,000 --> 00:00:00,500\nNew\n\n"
    before = [entry.name for entry in Document("srt", SRT.encode()).entries()]
    assert [entry.name for entry in Document("srt", (added + SRT).encode()).entries()][1:] == before


def test_equal_cues_have_names_of_their_own():
    again = SRT + "\n10\n00:00:07,000 --> 00:00:08,000\n42\n"
    names = [entry.name for entry in Document("srt", again.encode()).entries()]
    assert len(set(names)) == 4
    assert names[3] == f"{names[2]}#2"


def test_texts_that_would_end_a_cue_do_not_fit():
    document = Document("srt", SRT.encode())
    segment = segments("srt", SRT.encode())[0]
    assert document.misfit(segment, "a\n\nb")
    assert document.misfit(segment, "a --> b")
    assert document.misfit(segment, "a\nb") is None


@pytest.mark.parametrize(("format", "data"), [("srt", b"no cues\n"), ("vtt", b"1\n00:01.000 --> 00:02.000\nHi\n")])
def test_what_is_no_subtitle_file_is_refused(format: str, data: bytes):
    with pytest.raises(DocumentError):
        texts(format, data)


@pytest.mark.parametrize("encoding", ["cp1252", "shift_jis", "iso2022_jp", "utf-16", "gb18030"])
def test_other_encodings_are_unchanged(encoding: str):
    text = SRT.replace("there", "café" if encoding == "cp1252" else "日本語")
    data = text.encode(encoding)
    document = Document("srt", data, encoding=encoding)
    assert b"".join(document.written([])) == data
    same = document.written((entry.name, entry.segment.text) for entry in document.entries())
    assert b"".join(same).decode(encoding) == text


def test_an_encoding_that_does_not_give_the_same_bytes_is_refused():
    with pytest.raises(DocumentError, match="cannot be written back unchanged"):
        Document("srt", SRT.replace("there", "日本").encode("iso2022_jp") + b"\x1b(B\x1b(B", encoding="iso2022_jp")
