"""Names of the tensors of a state brought to those of a module, where exactly one way fits.

Training puts prefixes before names: 'module.' and '_orig_mod.' of parallel training and torch.compile, anywhere in a name
where a part of the network was wrapped; 'model.' or 'network.' of classes around the network, or any other name of theirs
before all names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn

from feature_lens.errors import CheckpointError

Shape = tuple[int, ...]

# What may be taken out of every name: nothing, what torch puts in, and what classes around a network call it as well.
_REMOVED: Final[tuple[frozenset[str], ...]] = (
    frozenset(),
    frozenset({"module", "_orig_mod"}),
    frozenset({"module", "_orig_mod", "model", "network"}),
)


@dataclass(frozen=True)
class Wanted:
    """What a module holds: the shape of every tensor by name, and of each that must be given all its names."""

    shapes: Mapping[str, Shape]
    needed: Sequence[frozenset[str]]

    def lacks(self, names: frozenset[str]) -> list[str]:
        """A name of each tensor that must be given, but is not."""
        order = {name: place for place, name in enumerate(self.shapes)}
        return [min(one, key=order.__getitem__) for one in self.needed if not one & names]


def matched(given: Mapping[str, Shape], wanted: Wanted, what: str) -> dict[str, str]:
    """The module's name of each name given; raises CheckpointError, naming `what`, where no way fits, or several do."""
    if _fits(names := {name: name for name in given}, given, wanted):
        return names
    ways = {tuple(way.items()): way for way in _ways(list(given), wanted)}
    fitting = [way for way in ways.values() if _fits(way, given, wanted)]
    if len(fitting) > 1:
        name = next(name for name in given if len({way[name] for way in fitting}) > 1)
        shown = " or ".join(f"'{way[name]}'" for way in fitting)
        raise CheckpointError(
            f"The names of the {what} state fit this network in {len(fitting)} ways ('{name}' as {shown}); give it with the "
            "names of this very network."
        )
    if fitting:
        return fitting[0]
    _refuse(max([names, *ways.values()], key=lambda way: len(wanted.shapes.keys() & way.values())), given, wanted, what)


def _fits(way: Mapping[str, str], given: Mapping[str, Shape], wanted: Wanted) -> bool:
    return (
        len(set(way.values())) == len(way)
        and all(wanted.shapes.get(name) == given[old] for old, name in way.items())
        and not wanted.lacks(frozenset(way.values()))
    )


def _ways(given: list[str], wanted: Wanted) -> Iterator[dict[str, str]]:
    """Every name given as one of the module's, in each way that could be meant."""
    for removed in _REMOVED:
        # A wrapper's prefix is before all names of one of the two.
        for ours, theirs in [*((p, "") for p in _prefixes(given)), *(("", p) for p in _prefixes(list(wanted.shapes)))]:
            known = {_without(name, theirs, removed): name for name in wanted.shapes}
            if len(known) < len(wanted.shapes):
                continue  # two tensors of the module would have one name
            made = {name: _without(name, ours, removed) for name in given}
            yield {name: known.get(short, name) for name, short in made.items()}


def _prefixes(names: list[str]) -> list[str]:
    """All that every one of some names begins with, part by part, beginning with nothing."""
    parts = [name.split(".")[:-1] for name in names]
    common = [ones[0] for ones in zip(*parts, strict=False)]
    found = [""]
    for depth, part in enumerate(common):
        if any(one[depth] != part for one in parts):
            break
        found.append(f"{found[-1]}{part}.")
    return found


def _without(name: str, prefix: str, removed: frozenset[str]) -> str:
    *path, last = name.removeprefix(prefix).split(".")
    return ".".join([part for part in path if part not in removed] + [last])


def _refuse(way: Mapping[str, str], given: Mapping[str, Shape], wanted: Wanted, what: str) -> NoReturn:
    missing = wanted.lacks(frozenset(way.values()))
    surplus = [old for old, name in way.items() if name not in wanted.shapes]
    if missing or surplus:
        parts = [f"'{missing[0]}' is missing"] if missing else []
        parts += [f"'{surplus[0]}' is not a part of the network"] if surplus else []
        raise CheckpointError(
            f"The {what} state must name the parameters of this network, but {' and '.join(parts)} "
            f"({len(missing)} missing, {len(surplus)} unknown); {_advice(given, wanted)}."
        )
    for old, name in way.items():
        if given[old] != wanted.shapes[name]:
            raise CheckpointError(
                f"'{name}' of the {what} state must have the shape {wanted.shapes[name]}, but {given[old]} came; "
                "give the checkpoint of this very architecture."
            )
    twice = next(name for name in way.values() if sum(other == name for other in way.values()) > 1)
    both = " and ".join(f"'{old}'" for old, name in way.items() if name == twice)
    raise CheckpointError(
        f"The {what} state must give each tensor once, but {both} are both '{twice}'; give one of them."
    )


def _advice(given: Mapping[str, Shape], wanted: Wanted) -> str:
    """What to do: where the names below one prefix are those of the network, and others stand beside them, to choose."""
    parts = {name[: at + 1] for name in given for at, letter in enumerate(name) if letter == "."}
    for prefix in sorted(parts, key=lambda one: (one.count("."), one)):
        below = {name: name.removeprefix(prefix) for name in given if name.startswith(prefix)}
        if len(below) < len(given) and _fits(below, given, wanted):
            return f"those below '{prefix}' would fit, so give these alone if they are meant"
    return "give the checkpoint of this very architecture"
