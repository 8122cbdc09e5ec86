"""What this package is called where packages are installed, its version, and who else claims its folder.

The distribution has another name than the folder, because on the public index the folder's name is that of another
project, which installs a folder of the same name: whichever comes last replaces the files of the other.
"""

from __future__ import annotations

import os
from typing import Final

DISTRIBUTION: Final = "effective-feature-lens"
VERSION: Final = "0.1.0"  # the build reads it here, so that a checkout that was never installed has it too


def other_owners(folder: str) -> list[str]:
    """Names of the other distributions that installed the package `folder`, by their records beside it."""
    site, package = os.path.split(os.path.abspath(folder))
    if not os.path.isdir(site):  # imported from inside an archive
        return []
    with os.scandir(site) as entries:
        kept = sorted(entry.name for entry in entries if entry.name.endswith((".dist-info", ".egg-info")))
    owners: list[str] = []
    for entry in kept:
        name = entry.rpartition(".")[0].split("-")[0].replace("_", "-").replace(".", "-").lower()
        if name != DISTRIBUTION and _claims(os.path.join(site, entry), package):
            owners.append(name)
    return owners


def _claims(records: str, package: str) -> bool:
    """Whether one distribution's list of files, or the older list of its packages, names the package."""
    listed, line = (
        ("RECORD", f"{package}/__init__.py,") if records.endswith(".dist-info") else ("top_level.txt", package)
    )
    try:
        with open(os.path.join(records, listed), "rb") as file:
            content = b"\n" + file.read().replace(b"\r", b"") + b"\n"
    except OSError:
        return False  # a distribution without a list claims nothing
    return f"\n{line}".encode() in content if listed == "RECORD" else f"\n{line}\n".encode() in content


def warn_of_other_owners(folder: str) -> None:
    """Say in one sentence that another distribution owns the folder of this package; nothing where none does."""
    if owners := other_owners(folder):
        import warnings  # here, so that an import that has nothing to say does not wait for it

        warnings.warn(
            f"The folder '{folder}' must belong to {DISTRIBUTION} alone, but the distribution {' and '.join(owners)} "
            f"installed it too, so its files may be of either; uninstall both, then install {DISTRIBUTION} from its "
            "checkout or wheel.",
            RuntimeWarning,
            stacklevel=3,
        )
