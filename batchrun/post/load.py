"""The functions that `--post` names: found, imported, and checked before the first call."""

import contextlib
import difflib
import hashlib
import importlib
import importlib.util
import inspect
import io
import logging
import sys
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from batchrun.errors import RefusedError
from batchrun.post.builtin import BUILT_IN

log = logging.getLogger(__name__)

_FORMS = "FILE.py:name, package.module:name, or one of " + ", ".join(BUILT_IN)


@dataclass(frozen=True, slots=True)
class Function:
    # `target`: a function or a class
    name: str
    target: Any
    is_class: bool
    is_coroutine: bool

    def make(self) -> Callable[..., Any]:
        return self.target() if self.is_class else self.target


def located(spec: str, folder: Path | None = None) -> str:
    where, colon, name = spec.rpartition(":")
    if not colon or not where.endswith(".py"):
        return spec
    return f"{(folder or Path.cwd()) / Path(where).expanduser()}:{name}"


def load(specs: Sequence[str]) -> list[Function]:
    """Raises RefusedError."""
    return [_loaded(spec) for spec in specs]


def _loaded(spec: str) -> Function:
    if ":" not in spec:
        return _built_in(spec)
    where, _, name = spec.rpartition(":")
    if not where or not name:
        raise RefusedError(f"--post {spec}: not a name of a function", f"write {_FORMS}")
    module = _imported(spec, where)
    target: Any = module
    for part in name.split("."):
        target = getattr(target, part, None)
        if target is None:
            public = [own for own, value in vars(module).items() if callable(value) and not own.startswith("_")]
            near = difflib.get_close_matches(name, public, 1)
            hint = f"did you mean {near[0]}?" if near else None
            raise RefusedError(f"--post {spec}: {where} has no {name}", hint)
    _check_call(spec, target)
    return Function(
        f"{Path(where).name if where.endswith('.py') else where}:{name}",
        target,
        inspect.isclass(target),
        _is_coroutine(target),
    )


def _built_in(name: str) -> Function:
    if name in BUILT_IN:
        return Function(name, BUILT_IN[name], is_class=False, is_coroutine=False)
    near = difflib.get_close_matches(name, BUILT_IN, 1)
    hint = f"did you mean {near[0]}?" if near else f"write {_FORMS}"
    raise RefusedError(f"--post {name}: no built-in function has this name", hint)


def _imported(spec: str, where: str) -> ModuleType:
    if where.endswith(".py") and not Path(where).is_file():
        raise RefusedError(f"--post {spec}: there is no file {where}", "the path is relative to the current directory")
    try:
        with _output_in_log(spec):
            return _from_file(Path(where)) if where.endswith(".py") else _from_package(where)
    except Exception as error:
        raise _cannot_import(spec, error) from error
    except SystemExit as error:
        raise RefusedError(f"--post {spec}: importing the module ends the process (exit {error.code})") from error


def _from_file(path: Path) -> ModuleType:
    # Once under a name of its own; it can import its neighbours.
    path = path.resolve()
    name = f"batchrun_post_{hashlib.blake2b(str(path).encode(), digest_size=6).hexdigest()}"
    if name in sys.modules:
        return sys.modules[name]
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    found = importlib.util.spec_from_file_location(name, path)
    if found is None or found.loader is None:
        raise ImportError(f"{path} is not Python source")
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    try:
        found.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _from_package(name: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.append(here)
    return importlib.import_module(name)


@contextlib.contextmanager
def _output_in_log(spec: str) -> Generator[None]:
    output = io.StringIO()
    try:
        with contextlib.redirect_stdout(output):
            yield
    finally:
        for line in output.getvalue().splitlines():
            log.info("post: %s: %s", spec, line)


def _cannot_import(spec: str, error: Exception) -> RefusedError:
    frames = inspect.getinnerframes(error.__traceback__) if error.__traceback__ else []
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    if isinstance(error, SyntaxError):
        place = f" (line {error.lineno})"
    return RefusedError(
        f"--post {spec}: the module cannot be imported: {type(error).__name__}: {error}{place}",
        "fix the module, or install the packages it needs beside batchrun; no request was sent",
    )


def _check_call(spec: str, target: Any) -> None:
    if not callable(target):
        raise RefusedError(f"--post {spec}: {type(target).__name__} is not a function", "name a function or a class")
    if not inspect.isclass(target):
        _check_binds(spec, target, ("reply",), "it must take one argument, the reply")
        return
    _check_binds(spec, target, (), "the class must take no arguments: each worker makes one instance")
    call = getattr(target, "__call__", None)  # noqa: B004  the method that instances are called by, to look at it
    if "__call__" not in {name for base in target.__mro__ for name in vars(base)} or call is None:
        raise RefusedError(
            f"--post {spec}: instances of the class cannot be called", "give it def __call__(self, reply)"
        )
    _check_binds(spec, target.__call__, ("self", "reply"), "__call__ must take one argument, the reply")


def _check_binds(spec: str, target: Any, arguments: Sequence[str], rule: str) -> None:
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):
        return  # written in C: what it takes is not known before it is called
    try:
        signature.bind(*arguments)
    except TypeError as error:
        raise RefusedError(f"--post {spec}: wrong signature {signature}: {error}", rule) from error
    if inspect.isasyncgenfunction(target) or inspect.isgeneratorfunction(target):
        raise RefusedError(f"--post {spec}: the function is a generator", "return one value instead of yielding")


def _is_coroutine(target: Any) -> bool:
    if inspect.isclass(target) or not inspect.isroutine(target):
        call = getattr(target, "__call__", None)  # noqa: B004  the method, to look at it
        return inspect.iscoroutinefunction(target) or inspect.iscoroutinefunction(call)
    return inspect.iscoroutinefunction(target)
