"""What a module holds beside its parameters, put back after a pass, so that a network stays a function of its input.

A forward may keep its last values, count its calls, fill a cache, or put other tensors in the place of its buffers.
The next pass must not see them, nor a copy of the module: they may hold the graph of a pass, or tensors that only
exist while one is transformed.
"""

from __future__ import annotations

import copy
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterator
from operator import is_
from typing import Any, Final

import torch

_DICTS: Final = (dict, OrderedDict, defaultdict)
_CONTAINERS: Final = (*_DICTS, list, set, deque)


class Held:
    """The attributes of a module and of its parts, and what is in those that are dicts, lists and sets, as they are now.

    Not the numbers of its tensors, nor its hooks, which are set and removed from outside.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        own = [vars(part) for part in module.modules()]
        self._attributes = [(attributes, dict(attributes)) for attributes in own]
        seen: set[int] = set()
        self._contents = [
            (container, copy.copy(container))
            for attributes in own
            for name, value in attributes.items()
            if not name.endswith("hooks")
            for container in _containers(value, seen)
        ]

    def put_back(self) -> None:
        """Have the module hold what it held. Cost: a look at every attribute."""
        for now, before in (*self._attributes, *self._contents):
            if not _same(now, before):
                _fill(now, before)


def _containers(value: Any, seen: set[int]) -> Iterator[Any]:
    """A container and those in it."""
    if type(value) not in _CONTAINERS or id(value) in seen:
        return
    seen.add(id(value))
    yield value
    for inner in value.values() if isinstance(value, dict) else value:
        yield from _containers(inner, seen)


def _same(now: Any, before: Any) -> bool:
    """Whether two containers of one type hold the same objects."""
    if len(now) != len(before):
        return False
    if isinstance(now, set):
        return bool(now == before)
    values = (now.values(), before.values()) if isinstance(now, dict) else (now, before)
    return all(map(is_, *values)) and (not isinstance(now, dict) or now.keys() == before.keys())


def _fill(container: Any, content: Any) -> None:
    container.clear()
    if isinstance(container, (dict, set)):
        container.update(content)
    else:
        container.extend(content)
