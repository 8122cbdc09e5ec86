"""One small registry for all that can be extended: bases, output reductions, renderers, exporters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from typing import Generic, TypeVar

from feature_lens.errors import SettingsError

T = TypeVar("T")


def unknown_name(kind: str, name: str, known: list[str]) -> SettingsError:
    """The error for a name that is not among the known ones, with a near match where there is one."""
    near = get_close_matches(name, known, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    listed = ", ".join(known) if len(known) <= 24 else ", ".join(known[:24]) + f" and {len(known) - 24} more"
    return SettingsError(f"No {kind} is called '{name}'; there is {listed or 'none'}.{hint}")


class Registry(Mapping[str, T], Generic[T]):
    """Names to entries of one kind; a name is given once, and an unknown one is answered with the known ones."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that enters an object under `name`; raises SettingsError when the name is taken."""

        def enter(entry: T) -> T:
            if name in self._entries:
                raise SettingsError(f"A {self.kind} called '{name}' is registered already; choose another name.")
            self._entries[name] = entry
            return entry

        return enter

    def __getitem__(self, name: str) -> T:
        if name not in self._entries:
            raise unknown_name(self.kind, name, list(self._entries))
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
