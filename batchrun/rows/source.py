"""The bytes of an input and their lines, which end at line feeds only. Every failure is an `InputError`."""

import codecs
import difflib
import gzip
import os
import stat
import sys
import tempfile
import weakref
import zlib
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from io import FileIO
from itertools import repeat
from pathlib import Path
from typing import Any, BinaryIO, cast

from batchrun.display import printable
from batchrun.errors import InputError, StorageError
from batchrun.models import Invalid
from batchrun.rows.check import ROW_LIMIT, too_long, undecodable

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

BOM = b"\xef\xbb\xbf"
CHUNK = 256 * 1024
GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGICS = (b"\x28\xb5\x2f\xfd", *(bytes([low, 0x2A, 0x4D, 0x18]) for low in range(0x50, 0x60)))
BOMB_RATIO = 1000
BOMB_SIZE = 1024**3
PACKED_SUFFIXES = (".gz", ".gzip", ".zst", ".zstd")
_STREAM_NAMES = ("-", "/dev/stdin", "/dev/fd/", "/proc/self/fd/")
_SHORTEST = 120
_ENOUGH = 20_000
_LONG = 4096  # bytes from which lines are found one by one


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Source:
    """A regular file, or a stream's spool."""

    path: Path
    name: str
    suffix: str
    size: int
    stamp: tuple[int, ...] = field(repr=False)  # a change while reading is refused

    def chunks(self, size: int = CHUNK) -> Iterator[bytes]:
        """Unpacked. Raises InputError."""
        with translated(self.name), self.path.open("rb", buffering=0) as raw:
            stream = _unpacked(raw)
            total = 0
            while piece := stream.read(size):
                total += len(piece)
                refuse_bomb(total, self.size, self.name)
                yield piece
        self.refuse_change()

    def head(self, size: int = 64 * 1024) -> bytes:
        """Unpacked, without leading blanks."""
        return next((piece for piece in self.chunks(size) if piece.removeprefix(BOM).strip()), b"")

    def refuse_change(self) -> None:
        """Raises InputError."""
        with translated(self.name):
            stamp = stamp_of(self.path.stat())
        if stamp != self.stamp:
            raise InputError(f"{self.name} changed while it was read.", "Wait until it is complete, or copy it first.")

    def packed(self) -> bool:
        """Whether the bytes on disk are gzip or zstd."""
        with translated(self.name), self.path.open("rb") as raw:
            start = raw.read(4)
        return start.startswith((GZIP_MAGIC, *ZSTD_MAGICS))


def is_stream(source: str) -> bool:
    """Whether it can be read only once."""
    if source == "-" or source.startswith(_STREAM_NAMES[1:]):
        return True
    try:
        mode = Path(source).stat().st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def regular(path: Path, name: str) -> Source:
    """Raises InputError with the nearest name."""
    with translated(name):
        try:
            status = path.stat()
        except FileNotFoundError:
            raise InputError(f"There is no file {name}.", _nearest(path)) from None
        except ValueError:  # a NUL in it
            raise InputError(f"{name} cannot be a file name.") from None
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{name} is neither a file nor a directory.")
        with path.open("rb"):
            pass
    return Source(path, name, suffix_of(path.name), status.st_size, stamp_of(status))


def spooled(source: str, spool: Path | None) -> Source:
    """`spool` None: a temporary file."""
    name = "stdin" if source == "-" else printable(source)
    if spool is None:
        made, path = tempfile.mkstemp(prefix="batchrun-", suffix=".spool")
        os.close(made)
        target = Path(path)
    else:
        target = spool
    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0), 0o600)
    except OSError as error:
        raise StorageError(f"Cannot write {printable(str(target))}: {error.strerror}.") from error
    try:
        with open(descriptor, "wb", buffering=0) as sink, translated(name):
            _copy(source, sink, target)
    except BaseException:
        if spool is None:
            target.unlink(missing_ok=True)
        raise
    status = target.stat()
    found = Source(target, name, "", status.st_size, stamp_of(status))
    if spool is None:
        weakref.finalize(found, target.unlink, missing_ok=True)
    return found


def recoded(chunks: Iterable[bytes], encoding: str, name: str) -> Iterator[bytes]:
    """Raises InputError."""
    decoder = codecs.getincrementaldecoder(encoding)()
    done = 0
    try:
        for chunk in chunks:
            yield decoder.decode(chunk).encode()
            done += len(chunk)
        yield decoder.decode(b"", final=True).encode()
    except UnicodeError as error:
        raise InputError(
            f"{name} is not text in {encoding}: after {done:,} bytes or more, {error.args[-1]}.",
            "Use another --encoding.",
        ) from error


def with_line_feeds(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Old Macs end lines with carriage returns."""
    source = iter(chunks)
    first = next(source, b"")
    alone = b"\r" in first and b"\n" not in first
    yield first.replace(b"\r", b"\n") if alone else first
    if not alone:
        yield from source
        return
    for chunk in source:
        yield chunk.replace(b"\r", b"\n")


def suffix_of(name: str) -> str:
    """`.csv` for `rows.csv.gz`."""
    return Path(unpacked_name(name)).suffix.lower()


def unpacked_name(name: str) -> str:
    stem, dot, ending = name.rpartition(".")
    return stem if dot + ending.lower() in PACKED_SUFFIXES and stem else name


def refuse_bomb(unpacked: int, packed: int, name: str) -> None:
    """Raises InputError over 1 GiB and a ratio of 1,000."""
    if unpacked > BOMB_SIZE and unpacked > packed * BOMB_RATIO:
        raise InputError(
            f"{name} unpacks to more than {BOMB_RATIO} times its size: it is refused as a decompression bomb.",
            "If it is genuine, unpack it first.",
        )


def stamp_of(status: os.stat_result) -> tuple[int, ...]:
    """Changes when a file is written or replaced."""
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


@contextmanager
def translated(name: str) -> Generator[None]:
    """Translates errors of opening, reading and unpacking to InputError."""
    try:
        yield
    except PermissionError as error:
        raise InputError(f"No permission to read {name}.") from error
    except EOFError as error:
        raise InputError(
            f"{name} is cut off: its compressed data ends too early.", "Copy or download it again."
        ) from error
    except (gzip.BadGzipFile, zlib.error, zstd.ZstdError) as error:
        raise InputError(f"{name} is corrupt: {error}.", "Copy or download it again.") from error
    except OSError as error:
        raise InputError(f"Cannot read {name}: {error.strerror or error}.") from error


def _unpacked(raw: Any) -> BinaryIO:
    start = raw.read(4)
    raw.seek(0)
    if start.startswith(GZIP_MAGIC):
        return cast("BinaryIO", gzip.GzipFile(fileobj=raw))
    if start.startswith(ZSTD_MAGICS):
        return cast("BinaryIO", zstd.ZstdFile(raw))
    return raw


def _copy(source: str, sink: FileIO, target: Path) -> None:
    stream = sys.stdin.buffer if source == "-" else open(source, "rb")  # noqa: SIM115 (stdin is not ours to close)
    try:
        while piece := stream.read(CHUNK):
            _put(sink, piece, target)
    finally:
        if source != "-":
            stream.close()


def _put(sink: FileIO, piece: bytes, target: Path) -> None:
    rest = memoryview(piece)
    try:
        while rest:
            rest = rest[sink.write(rest) :]
    except OSError as error:
        raise StorageError(f"Cannot spool the input to {printable(str(target))}: {error.strerror}.") from error


def _nearest(path: Path) -> str | None:
    try:
        names = os.listdir(path.parent)
    except OSError:
        return f"The directory {printable(str(path.parent))} does not exist either."
    close = difflib.get_close_matches(path.name, names, n=1)
    return f"Did you mean {printable(str(path.parent / close[0]))}?" if close else None


def encoding_hint(data: bytes) -> str:
    if len(data) < _SHORTEST:  # charset-normalizer is often wrong here; Windows-1252 is by far the likeliest
        return "cp1252"
    from charset_normalizer import from_bytes  # noqa: PLC0415  only for a file that is not UTF-8

    found = from_bytes(data[:_ENOUGH]).best()
    return "cp1252" if found is None or found.encoding in ("ascii", "utf_8") else found.encoding


def line_groups(chunks: Iterable[bytes]) -> Iterator[list[str | Invalid] | list[str]]:
    """A bad line is an Invalid."""
    for group, _ in encoded_line_groups(chunks):
        yield group


def encoded_line_groups(
    chunks: Iterable[bytes],
) -> Iterator[tuple[list[str | Invalid] | list[str], Iterable[bytes | None]]]:
    """Also in UTF-8 where they are long: they are copied less."""
    number = 1
    for block in _blocks(without_bom(chunks)):
        group, encoded = _group(block, number)
        number += len(group)
        yield group, encoded


def raw_lines(chunks: Iterable[bytes], name: str) -> Iterator[str]:
    """Bad bytes become lone surrogates."""
    for block in _blocks(without_bom(chunks)):
        if len(block) > ROW_LIMIT:
            raise InputError(f"{name} has a line longer than {ROW_LIMIT // 1024**2} MiB.")
        for line in block.decode(errors="surrogateescape").split("\n"):
            yield line + "\n"


def without_bom(chunks: Iterable[bytes]) -> Iterator[bytes]:
    start = b""
    source = iter(chunks)
    for chunk in source:
        start += chunk
        if len(start) >= len(BOM):
            break
    yield start.removeprefix(BOM)
    yield from source


def _blocks(chunks: Iterable[bytes]) -> Iterator[bytes]:
    # Blocks are whole lines; what exceeds a row's limit is dropped.
    parts: list[bytes | memoryview] = []
    size = 0
    for chunk in chunks:
        cut = chunk.rfind(b"\n")
        if cut < 0:
            if size <= ROW_LIMIT:
                parts.append(chunk)
                size += len(chunk)
            continue
        view, start = memoryview(chunk), 0  # so that each line is copied once
        if parts:
            end = chunk.find(b"\n")
            yield b"".join([*parts, view[:end]])
            start = end + 1
        if start <= cut:
            yield chunk[start:cut]
        parts = [view[cut + 1 :]]
        size = len(parts[0])
    if size:
        yield b"".join(parts)


def _group(block: bytes, number: int) -> tuple[list[str | Invalid] | list[str], Iterable[bytes | None]]:
    if len(block) <= ROW_LIMIT:
        lines = block.replace(b"\r\n", b"\n").removesuffix(b"\r") if b"\r" in block else block
        with suppress(UnicodeDecodeError):
            if len(lines) < _LONG or lines.find(b"\n", 0, _LONG) >= 0:
                return lines.decode().split("\n"), repeat(None)
            encoded = _split(lines)
            return [line.decode() for line in encoded], encoded
    return [_line(data, number + index) for index, data in enumerate(block.split(b"\n"))], repeat(None)


def _split(lines: bytes) -> list[bytes]:
    # `find` is 25 times as fast as `split` on long lines.
    found: list[bytes] = []
    start, end = 0, lines.find(b"\n")
    while end >= 0:
        found.append(lines[start:end])
        start, end = end + 1, lines.find(b"\n", end + 1)
    found.append(lines[start:])
    return found


def _line(data: bytes, number: int) -> str | Invalid:
    if len(data) > ROW_LIMIT:
        return too_long(number, data)
    data = data.removesuffix(b"\r")
    try:
        return data.decode()
    except UnicodeDecodeError:
        return undecodable(number, data)
