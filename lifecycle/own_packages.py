"""Make the imports of `frontend` and `worker` find this product's packages.

Both are names that a user's project may have too, and a project's directory may come first on the module path.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from lifecycle.errors import LifecycleError


def bind(name: str) -> None:
    """Import the package `name` that is installed beside `lifecycle`, wherever else there is a module of that name.

    Raises LifecycleError, with both paths, when another module of that name has been imported already.
    """
    initial = Path(__file__).resolve().parent.parent / name / "__init__.py"
    loaded = sys.modules.get(name)
    if loaded is not None:
        if Path(loaded.__file__ or "").resolve() != initial:
            raise LifecycleError(
                f"the module {name!r} of {loaded.__file__} was imported instead of {initial.parent}: rename "
                "your module, or import it after lifecycle"
            )
        return
    spec = importlib.util.spec_from_file_location(name, initial, submodule_search_locations=[str(initial.parent)])
    if spec is None or spec.loader is None:
        raise LifecycleError(f"the package {initial.parent} cannot be imported: install lifecycle again")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
