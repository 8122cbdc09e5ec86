"""Networks of the zoo made into runs and into files: trained or as shipped, extracted with the sets that suit them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from tqdm import tqdm

from feature_lens.extract import ExtractSettings, SetSettings, extract_run
from feature_lens.networks.zoo import ZOO, ZooNet
from feature_lens.store import check_folder, check_writable, write_bytes


def demo_run(
    name: str, out: Path | str, *, shipped: bool = False, overwrite: bool = False, recipe: Sequence[str] = ()
) -> Path:
    """Train a network of the zoo, or take its shipped parameters, and write a run of it, with its dual model and the
    dynamics of its training where they are a matter of minutes.

    recipe: entries 'setting=value' that differ from the shipped recipe. Raises SettingsError for an unknown name,
    CheckpointError where nothing is shipped for the recipe, and what `extract_run` raises.
    """
    net = ZOO[name].from_text(recipe)
    check_writable(out, overwrite)
    training = net.shipped_training() if shipped else net.train(_bar, net.snapshots)
    return extract_run(
        net.network(training),
        net.examples(),
        out,
        demo_settings(net),
        name=name,
        overwrite=overwrite,
        remarks=net.remarks(),
        snapshots={**training.snapshots, net.epochs: training.trained} if net.dynamics else None,
    )


def demo_settings(net: ZooNet) -> ExtractSettings:
    """What a run of a network of the zoo holds."""
    if not net.sets:
        return ExtractSettings(dual=net.dual)
    sets = tuple(SetSettings.parsed(text, n_components=net.components) for text in net.sets)
    return ExtractSettings(sets=sets, dual=net.dual)


def train_into(
    name: str, folder: Path, *, recipe: Sequence[str] = (), snapshots: int | None = None, overwrite: bool = False
) -> list[Path]:
    """Train a network of the zoo and write its parameters, snapshots, recipe and factories into a folder.

    snapshots: how many; as many as are shipped where that is None.
    Raises OutputError where the folder is a file, or holds something and `overwrite` is not set; with it files of the
    same names are replaced one by one, and nothing else is touched.
    """
    net = ZOO[name].from_text(recipe)
    check_folder(folder, overwrite)
    files = net.files(net.train(_bar, net.snapshots if snapshots is None else snapshots))
    folder.mkdir(parents=True, exist_ok=True)
    return [write_bytes(content, folder / file, overwrite) for file, content in files.items()]


def _bar(epochs: Iterable[int], what: str) -> Iterable[int]:
    return tqdm(epochs, desc=what, unit="epoch", disable=None)
