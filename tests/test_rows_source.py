"""Where an input may come from, what is found by content, and what is refused before anything is read."""

import bz2
import gzip
import io
import lzma
import os
import stat
import sys
import tarfile
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batchrun.errors import InputError, StorageError
from batchrun.models import Invalid, Row
from batchrun.rows import Input, open_input, source

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

LINES = b'{"a":1}\n{"a":2}\n'


def opened(path: Path | str, spool: Path | None = None) -> Input:
    return open_input(str(path), has_prompt=True, spool=spool)


def texts(rows: Input) -> list[str]:
    return [row.text for row in rows]


@pytest.mark.parametrize(
    ("name", "data", "format"),
    [
        ("a.csv", '{"a":1}\n{"a":2}', "jsonl"),
        ("a.txt", '{"a":1}\n', "jsonl"),
        ("a.jsonl", ' [ {"a":1}]', "json"),
        ("a.json", "[1]", "json"),
        ("a.jsonl", "[1]", "jsonl"),
        ("a", '{"a":oops}', "jsonl"),
        ("a.jsonl", "oops", "jsonl"),
        ("a.txt", "{not json}", "text"),
        ("a", "[12:03] hello", "text"),
        ("a.tsv", "a\tb\n1\t2", "tsv"),
        ("a", "a\tb\n1\t2", "tsv"),
        ("a", "id,first name\n1,2\n3,4", "csv"),
        ("a", "Hello, world\nBye, world", "text"),
        ("a.md", "a,b\n1,2", "text"),
        ("a.CSV", "a\n1", "csv"),
        ("a.dat", "\n" * 100_000 + '{"a":1}', "jsonl"),
    ],
)
def test_the_format_is_found_by_content_then_by_suffix(tmp_path: Path, name: str, data: str, format: str) -> None:
    (tmp_path / name).write_text(data)
    assert opened(tmp_path / name).format == format


@pytest.mark.parametrize(
    "pack",
    [gzip.compress, zstd.compress, lambda data: gzip.compress(data[:8], mtime=0) + gzip.compress(data[8:], mtime=0)],
)
@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst", "a.jsonl", "a"])
def test_compression_is_found_by_content_whatever_the_name(tmp_path: Path, pack, name: str) -> None:
    (tmp_path / name).write_bytes(pack(LINES))
    rows = opened(tmp_path / name)
    assert texts(rows) == ['{"a":1}', '{"a":2}']
    assert rows.stem == "a"


def checked_zstd(data: bytes) -> bytes:
    return zstd.compress(data, options={zstd.CompressionParameter.checksum_flag: 1})


@pytest.mark.parametrize("pack", [gzip.compress, checked_zstd])
def test_a_cut_or_damaged_archive_is_refused(tmp_path: Path, pack) -> None:
    packed = pack(os.urandom(20_000).hex().encode() + b"\n" + LINES)
    for data in (packed[:-5], packed[:9000], packed[:6000] + b"\0" * 100 + packed[6100:]):
        (tmp_path / "a.txt.gz").write_bytes(data)
        with pytest.raises(InputError, match=r"is cut off|is corrupt"):
            list(opened(tmp_path / "a.txt.gz"))


def test_a_plain_file_called_gz_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(LINES)
    assert len(texts(opened(tmp_path / "a.jsonl.gz"))) == 2


def test_a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "BOMB_SIZE", 1_000_000)
    line = b'{"a":"' + b"x" * 1000 + b'"}\n'
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(line * 8000, mtime=0))
    (tmp_path / "b.jsonl.zst").write_bytes(zstd.compress(line * 8000))
    with pytest.raises(InputError, match="decompression bomb"):
        list(opened(tmp_path / "b.jsonl.zst"))
    assert len(texts(opened(tmp_path / "a.jsonl.gz"))) == 8000, "gzip of real rows stays under 1000:1"


@pytest.mark.parametrize(
    "data", [b"", b" \n\r\n\t", b"\xef\xbb\xbf", gzip.compress(b"", mtime=0), gzip.compress(b"\n", mtime=0)]
)
def test_an_empty_file_is_refused_in_one_line(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.jsonl").write_bytes(data)
    with pytest.raises(InputError) as refused:
        opened(tmp_path / "a.jsonl")
    assert refused.value.message == f"{tmp_path}/a.jsonl has no rows: it is empty."


def tarred(name: str, data: bytes) -> bytes:
    """A tar archive with one file."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"\xd0\xcf\x11\xe0\xa1\xb1", ".xls"),
        (bz2.compress(b"a,b\n"), "a bzip2 file"),
        (lzma.compress(b"a,b\n"), "an xz file"),
        (b"7z\xbc\xaf\x27\x1c\0\4", "a 7z archive"),
        (b"Rar!\x1a\x07\1\0", "a RAR archive"),
        (tarred("in.csv", b"a,b\n"), "a tar archive"),
        (gzip.compress(tarred("in.csv", b"a,b\n")), "a tar archive"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "image/png"),
        (b"SQLite format 3\0", "SQLite"),
        (b"\x7fELF\x02\x01\x01" + b"\0" * 60, "binary"),
        (gzip.compress(b"PAR1 and so on", mtime=0), "inside an archive"),
    ],
)
def test_what_is_no_input_is_named(tmp_path: Path, data: bytes, what: str) -> None:
    (tmp_path / "a.txt").write_bytes(data)
    with pytest.raises(InputError, match=what) as refused:
        opened(tmp_path / "a.txt")
    assert refused.value.hint


def test_a_missing_file_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "reviews.jsonl").write_bytes(LINES)
    with pytest.raises(InputError, match="There is no file") as refused:
        opened(tmp_path / "review.jsonl")
    assert refused.value.hint == f"Did you mean {tmp_path}/reviews.jsonl?"
    with pytest.raises(InputError) as refused:
        opened(tmp_path / "no" / "a.jsonl")
    assert refused.value.hint == f"The directory {tmp_path}/no does not exist either."


def test_names_that_cannot_be_are_refused(tmp_path: Path) -> None:
    for name in ("a\0b", "x" * 5000, "~no-such-user/x", ""):
        with pytest.raises(InputError):
            opened(name)


def test_a_name_with_control_characters_is_shown_safely(tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        opened(tmp_path / "\x1b]0;x\x07")
    assert "\x1b" not in refused.value.message


def test_no_permission_is_one_line() -> None:
    with pytest.raises(InputError, match=r"No permission to read x\."), source.translated("x"):
        raise PermissionError(13, "Permission denied")


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(LINES)
    rows = opened(path)
    with path.open("ab") as file:
        file.write(LINES)
    with pytest.raises(InputError, match="changed while it was read"):
        list(rows)


def test_a_directory_is_a_row_per_file(tmp_path: Path) -> None:
    for name in ("b.txt", "a/c.txt", ".hidden", ".git/config", "a/.x"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f'"{Path(name).name}"\n')
    (tmp_path / "bad.bin").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "nul.txt").write_bytes(b"a\0b")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    rows = opened(tmp_path)
    assert (rows.format, rows.columns, rows.size) == ("files", ("path", "name", "text"), None)
    assert list(rows) == [
        Row(1, None, '{"path":"a/c.txt","name":"c.txt","text":"\\"c.txt\\"\\n"}', rows.head(1)[0][3]),
        Row(2, None, '{"path":"b.txt","name":"b.txt","text":"\\"b.txt\\"\\n"}', rows.head(2)[1][3]),
        Invalid(3, "bad.bin", "a binary file"),
        Invalid(4, "nul.txt", "a binary file"),
    ]


def test_a_glob_is_a_row_per_match(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "c.md"):
        (tmp_path / name).write_text(name)
    rows = opened(f"{tmp_path}/*.txt")
    assert [row.fields["path"] for row in rows if isinstance(row, Row)] == [f"{tmp_path}/a.txt", f"{tmp_path}/b.txt"]


def test_a_file_whose_name_looks_like_a_glob_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "a[1].jsonl").write_bytes(LINES)
    assert opened(tmp_path / "a[1].jsonl").format == "jsonl"


def test_an_empty_directory_or_glob_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".hidden").write_text("x")
    with pytest.raises(InputError, match="no files in the directory"):
        opened(tmp_path)
    with pytest.raises(InputError, match="No file matches"):
        opened(f"{tmp_path}/*.txt")


def test_stdin_is_spooled_and_can_be_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(gzip.compress(LINES, mtime=0))))
    spool = tmp_path / "spool"
    rows = opened("-", spool)
    assert texts(rows) == texts(rows) == ['{"a":1}', '{"a":2}']
    assert (rows.name, rows.stem) == ("stdin", "stdin")
    assert stat.S_IMODE(spool.stat().st_mode) == 0o600
    assert opened(spool).head(1) == rows.head(1)


def test_stdin_is_spooled_where_the_system_has_no_such_flag_as_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "O_NOFOLLOW", raising=False)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(LINES)))
    assert texts(opened("-", tmp_path / "spool")) == ['{"a":1}', '{"a":2}']


def test_stdin_without_a_spool_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(LINES)))
    monkeypatch.setattr(source.tempfile, "tempdir", str(tmp_path))
    rows = opened("-")
    assert len(list(tmp_path.iterdir())) == 1
    assert len(texts(rows)) == 2
    del rows
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [OSError("the terminal is gone"), KeyboardInterrupt()])
def test_stdin_that_ends_with_an_error_leaves_nothing_behind(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(_: int) -> bytes:
        raise error

    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=SimpleNamespace(read=read)))
    monkeypatch.setattr(source.tempfile, "tempdir", str(tmp_path))
    with pytest.raises((InputError, StorageError, KeyboardInterrupt)):
        opened("-")
    assert list(tmp_path.iterdir()) == []


def test_empty_stdin_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"\n")))
    with pytest.raises(InputError, match="stdin has no rows: it is empty"):
        opened("-", tmp_path / "spool")


def test_a_fifo_is_spooled(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    writing = threading.Thread(target=(tmp_path / "fifo").write_bytes, args=(LINES,))
    writing.start()
    rows = opened(tmp_path / "fifo", tmp_path / "spool")
    writing.join()
    assert texts(rows) == texts(rows) == ['{"a":1}', '{"a":2}']


def test_a_spool_that_cannot_be_written_is_the_disk_s_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(LINES)))
    with pytest.raises(StorageError, match="No space left"):
        opened("-", Path("/dev/full"))
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError):
        opened("-", tmp_path / "link")


STARTS = st.sampled_from(
    [b"", b"{", b"[", b"[{", b'"', b"PAR1", b"PK\x03\x04", b"\x1f\x8b\x08\0", b"\x28\xb5\x2f\xfd", b"a,b\n"]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=150)
@given(STARTS, st.binary(max_size=120), st.sampled_from(["a.jsonl", "a.csv", "a.tsv", "a.txt", "a"]), st.booleans())
def test_garbage_is_refused_or_named_never_a_crash(
    tmp_path: Path, start: bytes, data: bytes, name: str, packed: bool
) -> None:
    (tmp_path / name).write_bytes(gzip.compress(start + data, mtime=0) if packed else start + data)
    try:
        rows = list(opened(tmp_path / name))
    except InputError:
        return
    for row in rows:
        row.text.encode()
        assert isinstance(row, Invalid) or "\n" not in row.text
