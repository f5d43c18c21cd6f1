"""Find and import what a user's `--engine` names: `module:function` or `path/to/file.py:function`."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from lifecycle.execution.engine import EngineLoadError

_SUFFIX = ".py"
_ALIAS = "lifecycle_engine_"  # begins the name of a module whose own name is taken


class UserModule:
    """The module or file of a user's engine. It is found when this is made, and imported by `load()`.

    A module of the current directory comes before one of the same name elsewhere, also when that one has been imported
    already, as this product's `worker` has. A file may have any name that ends with `.py`; its directory is put on the
    module path, so that it can import its neighbours.
    """

    def __init__(self, spec: str) -> None:
        """Look for what `spec` names. Raise EngineLoadError when it is malformed or names nothing that exists."""
        name, colon, self._attribute = spec.rpartition(":")
        if not (name and colon and self._attribute):
            raise EngineLoadError(
                f"engine {spec!r} is unknown: use echo, openai or module:function, or path/to/file.py:function"
            )
        self._spec = spec
        self._name = name
        self._file = self._find_file()
        if self._file is None:
            self._find_module()

    def load(self) -> Any:
        """Import the module and return the attribute, which may be a dotted path.

        Raise EngineLoadError when the import fails or there is no such attribute. An import may take long.
        """
        module = self._import()
        try:
            return functools.reduce(getattr, self._attribute.split("."), cast(Any, module))
        except AttributeError:
            kind = "module" if self._file is None else "file"
            raise EngineLoadError(
                f"engine {self._spec!r}: {kind} {self._name!r} has no {self._attribute!r}; check the spelling"
            ) from None

    def _find_file(self) -> Path | None:
        """Return the file that is named, or None when a module is named."""
        path = Path(self._name).expanduser()
        if not (self._name.endswith(_SUFFIX) or os.sep in self._name or path.is_file()):
            return None
        if not path.is_file():
            found = "a directory, not a file" if path.is_dir() else "not there"
            raise EngineLoadError(
                f"engine {self._spec!r}: {path} is {found}; name a Python file, as in model.py:generate"
            )
        if path.suffix != _SUFFIX:
            raise EngineLoadError(f"engine {self._spec!r}: {path} is no Python file; its name must end with {_SUFFIX}")
        return path.resolve()

    def _find_module(self) -> None:
        _put_first(os.getcwd())
        top = self._name.partition(".")[0]
        try:
            found = top in sys.modules or importlib.util.find_spec(top) is not None
        except (ImportError, ValueError):  # a name that no module can have
            found = False
        if not found:
            raise EngineLoadError(
                f"engine {self._spec!r}: there is no module {top!r}; start in its directory, add that to PYTHONPATH, "
                "or name the path of its file"
            )

    def _import(self) -> ModuleType:
        try:
            if self._file is not None:
                _put_first(os.getcwd())
                _put_first(str(self._file.parent))
                return _import_file(self._file.stem, self._file)
            return self._import_module()
        except (Exception, SystemExit) as failure:
            missing = failure.name if isinstance(failure, ModuleNotFoundError) else None
            if self._file is None and missing and (self._name == missing or self._name.startswith(missing + ".")):
                raise EngineLoadError(
                    f"engine {self._spec!r}: there is no module {missing!r}; check the name"
                ) from None
            reason = next(iter(str(failure).splitlines()), "")
            raise EngineLoadError(
                f"engine {self._spec!r}: {self._name!r} cannot be imported; fix this first: "
                f"{type(failure).__name__}: {reason}"
            ) from failure

    def _import_module(self) -> ModuleType:
        top, _, rest = self._name.partition(".")
        here = _in_current_directory(top)
        if here is None or top not in sys.modules or _file_of(sys.modules[top]) == here:
            return importlib.import_module(self._name)
        found = _import_file(top, here)
        return importlib.import_module(f"{found.__name__}.{rest}") if rest else found


def _put_first(directory: str) -> None:
    if sys.path[:1] != [directory]:
        sys.path.insert(0, directory)


def _in_current_directory(top: str) -> Path | None:
    """Return the file of the module or package `top` in the current directory, or None."""
    here = Path.cwd()
    candidates = (here / top / "__init__.py", here / (top + _SUFFIX))
    return next((path.resolve() for path in candidates if path.is_file()), None)


def _file_of(module: ModuleType) -> Path | None:
    file = getattr(module, "__file__", None)
    return Path(file).resolve() if file else None


def _import_file(name: str, path: Path) -> ModuleType:
    """Import a file as the module `name`, or under another name when a different module has that one."""
    while name in sys.modules and _file_of(sys.modules[name]) != path:
        name = _ALIAS + name
    if name in sys.modules:
        return sys.modules[name]
    package = [str(path.parent)] if path.name == "__init__.py" else None
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=package)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} cannot be read as a Python module")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module
