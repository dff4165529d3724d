"""How fast documents are cut into segments and written, beside polib and translate-toolkit, and what memory that takes.

python benchmarks/documents.py FORMAT FILE WHAT      one measurement in this process, as JSON: own, polib or toolkit
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from measure import Bench

from batchrun.digests import BLAKE3
from batchrun.documents import CHUNK, Document
from batchrun.engine.ingest import Problems, checked
from batchrun.models import Endpoint
from batchrun.plan.blanks import Blanks
from batchrun.plan.inputs import open_documents
from batchrun.plan.outputs import PATH
from batchrun.plan.settings import Settings
from batchrun.prompts import parse, renderer
from batchrun.rows import open_input

SEGMENTS = 100_000
PROMPT = "Translate into German:\n\n{{ text }}"
LEAST = {"json": 50_000, "po": 30_000, "xliff": 30_000}
WRITTEN = 100_000
RUNS = 3


def text(number: int) -> str:
    return f"Hello %(name)s, this is text number {number} of many that are to be translated."


def json_file(count: int) -> str:
    return "{\n" + ",\n".join(f'  "key_{n}": "{text(n)}"' for n in range(count)) + "\n}\n"


def po_file(count: int) -> str:
    head = 'msgid ""\nmsgstr ""\n"Content-Type: text/plain; charset=UTF-8\\n"\n'
    units = (
        f'\n#. a note\n#: module/file.py:{n}\n#, python-format\nmsgid "{text(n)}"\nmsgstr ""\n' for n in range(count)
    )
    return head + "".join(units)


def xliff_file(count: int) -> str:
    units = "".join(
        f'      <trans-unit id="{n}">\n        <source>{text(n)}</source>\n      </trans-unit>\n' for n in range(count)
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<xliff version="1.2" xmlns="urn:oasis:names:tc:xliff:document:1.2">\n'
        f'  <file original="a" source-language="en" target-language="de" datatype="plaintext">\n    <body>\n{units}'
        "    </body>\n  </file>\n</xliff>\n"
    )


FILES: dict[str, Callable[[int], str]] = {"json": json_file, "po": po_file, "xliff": xliff_file}


def run(bench: Bench) -> None:
    """The lines of the table about documents; processor time, the best of three processes each."""
    for format, least in LEAST.items():
        paths = [bench.folder / f"{count}.{format}" for count in (SEGMENTS, 4 * SEGMENTS)]
        for path, count in zip(paths, (SEGMENTS, 4 * SEGMENTS), strict=True):
            path.write_text(FILES[format](count), encoding="utf-8")
        own = best(format, paths[0], "own")
        others = {what: best(format, paths[0], what) for what in ("polib", "toolkit") if what in readers(format)}
        name = format.upper()
        bench.table.row(
            "documents", f"{name}: segments found a second", f"{own['read']:,.0f}", f"{least:,}", own["read"] >= least
        )
        bench.table.row(
            "documents", f"{name}: written a second", f"{own['write']:,.0f}", f"{WRITTEN:,}", own["write"] >= WRITTEN
        )
        fastest = max(other["read"] for other in others.values())
        said = ", ".join(f"{what} {other['read']:,.0f}" for what, other in others.items())
        figure = f"{own['read'] / fastest:.1f} × ({said})"
        bench.table.row(
            "documents", f"{name}: compared with the faster library", figure, "2 ×", own["read"] >= 2 * fastest
        )
        large = best(format, paths[1], "own", runs=1)
        growth = (large["memory"] - own["memory"]) / (large["bytes"] - own["bytes"])
        what = f"{name}: memory for each further byte of the file"
        bench.table.row("documents", what, f"{growth:.2f} bytes", "0.3 bytes", growth <= 0.3)
        for taken, ratio in (
            ("the intake", intake(format)),
            ("the command with `--limit 0`", command(bench, paths[0])),
        ):
            what = f"{name}: {taken} compared with JSONL rows of the same members"
            bench.table.row("documents", what, f"{ratio:.2f} ×", "1.5 ×", ratio <= 1.5)


def command(bench: Bench, path: Path) -> float:
    """The time of a command that takes a document in and sends nothing, beside one that takes in rows with the same members."""
    (bench.folder / "prompt.txt").write_text(PROMPT)
    rows = bench.folder / f"{path.name}.jsonl"
    found = open_documents(Settings(input=str(path), output=f"{bench.folder}/out/{PATH}"))
    assert found is not None
    with rows.open("w", encoding="utf-8") as file:
        file.writelines(f"{row.text}\n" for row in found)
    more = ("-p", "prompt.txt", "-m", "mock", "--base-url", "http://127.0.0.1:9/v1", "--limit", "0", "--fresh", "-q")
    spent: dict[Path, list[float]] = {path: [], rows: []}
    for _ in range(RUNS):
        for each, times in spent.items():
            output = f"out-{each.name}"
            times.append(bench.run([sys.executable, "-m", "batchrun", "run", "-i", str(each), "-o", output, *more]).cpu)
    return min(spent[path]) / min(spent[rows])


def best(format: str, path: Path, what: str, runs: int = RUNS) -> dict[str, float]:
    """The fastest of some processes."""
    command = [sys.executable, __file__, format, path, what]
    found = [
        json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout) for _ in range(runs)
    ]
    return max(found, key=lambda each: each["read"]) | {"write": max(each["write"] for each in found)}


def readers(format: str) -> dict[str, Callable[[Path], Iterable[Any]]]:
    """How the libraries read a format."""
    import polib  # noqa: PLC0415  not in the process that measures batchrun
    from translate.storage import jsonl10n, po, xliff  # noqa: PLC0415  the same

    toolkit = {"json": jsonl10n.JsonFile, "po": po.pofile, "xliff": xliff.xlifffile}[format]
    found: dict[str, Callable[[Path], Iterable[Any]]] = {"toolkit": lambda path: toolkit.parsefile(str(path)).units}
    if format == "po":
        found["polib"] = lambda path: polib.pofile(str(path))
    return found


def strings(unit: Any) -> tuple[Any, Any, Any]:
    """What a program takes from a unit: its id, its text, its translation."""
    if hasattr(unit, "msgid"):
        return unit.msgctxt, unit.msgid, unit.msgstr
    return unit.getid(), str(unit.source), str(unit.target)


def chunks(path: Path) -> Iterator[bytes]:
    """A file as a document is read."""
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk


def measured(format: str, path: Path, what: str) -> dict[str, float]:
    """Segments a second read and written by this process, its memory after the reading and the size of the file."""
    size = path.stat().st_size
    began = time.process_time()
    if what != "own":
        count = sum(1 for unit in readers(format)[what](path) if strings(unit) is not None)
        return {"read": count / (time.process_time() - began), "write": 0.0, "memory": 0, "bytes": size}
    document = Document(format, partial(chunks, path))
    count = sum(1 for _ in document.entries())
    read_in = time.process_time() - began
    with open("/proc/self/status") as status:  # `ru_maxrss` has the memory of the process that began this one, too
        memory = next(1024 * int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    values = [(entry.name, entry.segment.text) for entry in document.entries()]
    began = time.process_time()
    with path.with_suffix(".out").open("wb") as file:
        for piece in document.written(values):
            file.write(piece)
    spent = time.process_time() - began - read_in  # which finds the segments again
    return {"read": count / read_in, "write": count / spent, "memory": memory, "bytes": size}


def intake(format: str) -> float:
    """The time of an intake of segments in this process beside that of rows with the same members: rendered and hashed
    alike; of rows it is seen whether they are blank, as segments never are."""
    prompt = parse(PROMPT, path="prompt.md")
    render = renderer(prompt, endpoint=Endpoint.CHAT, model="m", params={}, variables={}, columns={})
    with tempfile.TemporaryDirectory() as folder:
        document, rows = Path(folder, f"a.{format}"), Path(folder, "a.jsonl")
        document.write_text(FILES[format](SEGMENTS), encoding="utf-8")
        found = open_documents(Settings(input=str(document), output=f"{folder}/out/{PATH}"))
        assert found is not None
        rows.write_text("".join(f"{row.text}\n" for row in found), encoding="utf-8")
        times: dict[str, list[float]] = {"document": [], "rows": []}
        for _ in range(RUNS):
            for name, spent in times.items():
                source = found if name == "document" else open_input(str(rows), has_prompt=True)
                began = time.process_time()
                taken = checked(
                    source,
                    render,
                    Problems(source.where),
                    ("output",),
                    digest=BLAKE3,
                    blanks=Blanks(() if name == "document" else ("text",), None),
                )
                assert sum(1 for _ in taken) == SEGMENTS
                spent.append(time.process_time() - began)
    return min(times["document"]) / min(times["rows"])


if __name__ == "__main__":
    print(json.dumps(measured(sys.argv[1], Path(sys.argv[2]), sys.argv[3])))
