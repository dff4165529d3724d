"""What is sent to a cluster with a function, and what is not; and what an actor does with it."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest

from batchrun.cluster import bundle
from batchrun.cluster.driver import driver_environ
from batchrun.cluster.messages import PIECE, pieces
from batchrun.errors import RefusedError
from batchrun.models import Usage
from batchrun.post.actor import Actor, pack_done, pack_shard, unpack_done, unpack_shard
from batchrun.post.reply import KEPT, Done, Failure, Item, Shard, Value


def write(folder: Path, **files: str | bytes) -> None:
    """Files by name, with `__` for a slash and `_` before a name for a dot."""
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def taken(folder: Path) -> set[str]:
    """The files that are sent, without batchrun's own."""
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    return {name for name in found if not name.startswith("batchrun/")}


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "target"
    path.mkdir()
    return path


@pytest.fixture
def functions(tmp_path: Path) -> Path:
    path = tmp_path / "functions"
    write(path, score_py="def score(reply): ...", words_txt="a", data__more_csv="b", sub__part_py="C = 1")
    return path


def test_what_lies_beside_a_function_goes_along(functions: Path, target: Path) -> None:
    names = bundle.fill(target, [f"{functions}/score.py:score", "strip", f"{functions}/score.py:other"])
    assert names == ("functions-0/score.py:score", "strip", "functions-0/score.py:other")
    assert taken(target) == {
        f"functions-0/{name}" for name in ("score.py", "words.txt", "data/more.csv", "sub/part.py")
    }


def test_nothing_goes_along_that_may_hold_replies_or_keys(functions: Path, target: Path) -> None:
    write(functions, _env="KEY=1", _batchrun__run_db="replies", _git__config="c", batchrun_toml="[headers]")
    write(functions, runs__copy_db=b"SQLite format 3\0".ljust(68, b"\0") + b"BRJL" + b"replies", venv__pyvenv_cfg="")
    write(functions, venv__lib_py="", runs__copy_db_wal="replies", runs__copy_db_texts="rows")
    for name in ("wal", "texts"):
        (functions / "runs" / f"copy.db.{name}").rename(functions / "runs" / f"copy.db-{name}")
    bundle.fill(target, [f"{functions}/score.py:score"])
    assert taken(target) == {"functions-0/score.py", "functions-0/sub/part.py"}  # runs were kept there: only code


@pytest.mark.parametrize("at", [".", "data"])
def test_of_the_current_directory_only_code_is_taken(
    functions: Path, target: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    write(functions, data__code_py="")
    monkeypatch.chdir(functions / at)
    bundle.fill(target, [f"{functions}/score.py:score"])
    assert {"functions-0/score.py", "functions-0/data/code.py"} <= taken(target)
    assert "functions-0/data/more.csv" not in taken(target)
    assert ("functions-0/words.txt" in taken(target)) == (at == "data")


def test_a_file_that_holds_the_key_is_refused(functions: Path, target: Path) -> None:
    write(functions, sub__note_txt="the key is sk-canary-1")
    with pytest.raises(RefusedError, match=r"note\.txt contains the API key"):
        bundle.fill(target, [f"{functions}/score.py:score"], ["", "sk-canary-1"])


def test_too_much_is_refused(functions: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "MOST", 3)
    with pytest.raises(RefusedError, match="too many or too large to send to a cluster"):
        bundle.fill(target, [f"{functions}/score.py:score"])


def test_a_package_of_ones_own_goes_along_and_one_that_is_installed_does_not(
    tmp_path: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "here", ownpackage__deep__score_py="def f(reply): ...", ownmodule_py="def f(reply): ...")
    monkeypatch.syspath_prepend(tmp_path / "here")
    specs = ["ownpackage.deep.score:f", "ownmodule:f", "textwrap:dedent", "orjson:loads"]
    assert bundle.fill(target, specs) == tuple(specs)
    assert taken(target) == {"ownpackage/deep/score.py", "ownmodule.py"}


def test_the_folder_works_alone(functions: Path, target: Path) -> None:
    """With nothing but Python: batchrun is in it, and needs no other package there."""
    write(functions, score_py="import part\nfrom batchrun.post import Reply\ndef score(reply): return part.C")
    write(functions, part_py="C = 5")
    (spec,) = bundle.fill(target, [f"{functions}/score.py:score"])
    code = (
        "from batchrun.post.actor import pack_shard, unpack_done; from batchrun.post.actor import Actor; "
        "from batchrun.post.reply import Item, Shard; actor = Actor(); "
        f"assert actor.load(({spec!r},), 16, 5.0, False) is None; "
        "print(unpack_done(actor.run(pack_shard(Shard([Item('text')])))).results[0].output)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path[:0] = ['']; import msgpack; sys.path = [p for p in sys.path if 'site-packages' not in p]; {code}"],
        cwd=target,
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("5\n", "")


@pytest.fixture
def actor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Actor:
    write(tmp_path, long_py="def long(reply): return 'y' * int(reply.text)")
    monkeypatch.setattr(os, "_exit", os._exit)  # which a worker replaces
    monkeypatch.setattr("batchrun.post.worker._worker", None)
    monkeypatch.setattr("batchrun.post.worker._broken", None)
    own = Actor()
    assert own.load((f"{tmp_path / 'long.py'}:long",), 16, 5.0, False) is None
    return own


@pytest.mark.parametrize("length", [1, PIECE // 2, 3 * PIECE])
def test_shards_and_results_travel_in_pieces_that_fit_into_a_message(actor: Actor, length: int) -> None:
    shard = pack_shard(Shard([Item(str(length), row=letter * 200_000) for letter in "xy"]))
    sent = pieces(shard)
    assert len(sent) == 5
    assert max(map(len, sent)) <= PIECE
    result = actor.run(*sent)
    if isinstance(result, tuple):
        run, count = result
        back = [actor.piece(run, place) for place in range(count)]
        assert max(map(len, back)) <= PIECE
        result = b"".join(back)
    done = cast("Done", unpack_done(result))
    assert [cast("Any", each).output for each in done.results] == [f'"{"y" * length}"'] * 2


def test_shards_and_results_are_the_same_on_both_sides() -> None:
    usage = Usage(1, 2, 3, 4)
    items = [Item("a\ud800", '{"n": 1}', "[1]", usage, "stop", 7, "k"), Item("Все", line=2**40)]
    shard = Shard(items, 0.5, 3, 1)
    assert unpack_shard(pack_shard(shard)) == shard
    done = Done([Value('"x"', None), KEPT, Failure("c", "m", None)], 0.1, 0.2, {"f": 0.3}, range(2, 5), 0.4)
    back = unpack_done(pack_done(done))
    assert back == done._replace(numbers=(2, 3, 4))
    assert [type(each) for each in back.results] == [Value, Value, Failure]
    assert unpack_done(pack_done(None)) is None


def test_an_actor_that_cannot_import_a_function_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, lacks_py="import no_such_module")
    monkeypatch.setattr(os, "_exit", os._exit)
    monkeypatch.setattr("batchrun.post.worker._broken", None)
    said = Actor().load((f"{tmp_path / 'lacks.py'}:f",), 16, 5.0, False)
    assert said is not None
    assert "No module named 'no_such_module'" in said[1]


def test_the_driver_has_no_secret_but_rays_own() -> None:
    environ = driver_environ(
        {"HOME": "/home/me"}, {"OPENAI_API_KEY": "sk", "RAY_AUTH_TOKEN": "t", "RAY_ADDRESS": "a:1"}
    )
    assert {"OPENAI_API_KEY"}.isdisjoint(environ)
    assert environ["RAY_AUTH_TOKEN"] == "t"
    assert (environ["RAY_USAGE_STATS_ENABLED"], environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"]) == ("0", "0")
