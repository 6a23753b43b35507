"""Hooks for modules that are imported some day: `logging` and structlog are waited for."""

from __future__ import annotations

import _thread
import sys


TYPE_CHECKING = False  # without the weight of typing, as in the package itself
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any


class Watcher:
    """
    Calls a hook with a module right after it has been executed, each time.

    A finder that finds nothing itself: it asks the others, and lends the module
    a loader until the loader runs. The module, and whoever imports it, sees nothing of that.
    """

    def __init__(self, hooks: dict[str, Callable[[ModuleType], object]]) -> None:
        self.hooks = hooks
        self._asking: set[tuple[int, str]] = set()

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return what the other finders find of a module that is waited for."""
        hook = self.hooks.get(name)
        asked = (_thread.get_ident(), name)
        # Another finder of our kind may ask all of us in turn.
        if hook is None or asked in self._asking:
            return None
        self._asking.add(asked)
        try:
            spec = self._ask_others(name, path, target)
        finally:
            self._asking.discard(asked)
        if spec is not None and hasattr(spec.loader, "exec_module"):
            spec.loader = _Loader(spec.loader, hook)  # type: ignore[assignment]
        return spec

    def _ask_others(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None
    ) -> ModuleSpec | None:
        for finder in sys.meta_path:
            # Before Python 3.12, an old one may have another method.
            find_spec = getattr(finder, "find_spec", None)
            if finder is not self and find_spec is not None:
                spec: ModuleSpec | None = find_spec(name, path, target)
                if spec is not None:
                    return spec
        return None


class _Loader:
    """Executes a module by its own loader, and then calls a hook."""

    def __init__(self, loader: Any, hook: Callable[[ModuleType], object]) -> None:
        self._loader = loader
        self._hook = hook

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Leave it to the module's own loader."""
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Give the module its own loader back, execute it, and call the hook."""
        spec: Any = module.__spec__
        for owner, name in ((spec, "loader"), (module, "__loader__")):
            if getattr(owner, name, None) is self:
                setattr(owner, name, self._loader)
        self._loader.exec_module(module)
        self._hook(module)
