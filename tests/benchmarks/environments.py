"""Environments of the peers, made once below .bench/ and never part of the project's own.

FEATURE_LENS_BENCH names another folder for them. A peer's whole list is pinned and installed without dependencies, so
nothing large comes along that it does not need. Peers with `shares` take torch and numpy from the project's
environment, which so is the same for every contestant.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("FEATURE_LENS_BENCH", HERE.parents[1] / ".bench"))


@dataclass(frozen=True)
class Peer:
    """A contestant: its script, and what its environment holds; without requirements it runs in the project's own."""

    script: str
    requirements: tuple[str, ...] = ()
    shares: bool = False


CONTESTANTS = {
    "ours": Peer("ours.py"),
    "torch.func": Peer("peers/torch_func.py"),
    "neural-tangents": Peer(
        "peers/jax_ntk.py",
        (
            "neural-tangents==0.6.5",
            "jax==0.4.25",
            "jaxlib==0.4.25",
            "ml_dtypes==0.5.4",
            "numpy==1.26.4",
            "scipy==1.12.0",
            "opt_einsum==3.4.0",
            "frozendict==2.5.1",
        ),
    ),
    "vivit": Peer(
        "peers/vivit_gram.py",
        ("vivit-for-pytorch==1.0.0", "backpack-for-pytorch==1.7.1", "einops==0.8.2", "unfoldNd==0.2.3"),
        shares=True,
    ),
    "curvlinops": Peer(
        "peers/curvlinops_eigen.py",
        (
            "curvlinops-for-pytorch==3.0.1",
            "backpack-for-pytorch==1.7.1",
            "einops==0.8.2",
            "einconv==0.1.0",
            "linear_operator==0.6.1",
            "jaxtyping==0.2.36",
            "opt_einsum==3.4.0",
            "unfoldNd==0.2.3",
        ),
        shares=True,
    ),
}


def command(name: str) -> list[str]:
    """How to start a contestant, whose environment is made if need be; CalledProcessError where that fails."""
    peer = CONTESTANTS[name]
    python = _python(name, peer) if peer.requirements else Path(sys.executable)
    return [str(python), "-W", "ignore", str(HERE / peer.script)]


def _python(name: str, peer: Peer) -> Path:
    folder = CACHE / name
    python, stamp = folder / "bin" / "python", folder / "installed"
    wanted = "\n".join((*peer.requirements, sys.version))
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    _run(sys.executable, "-m", "venv", str(folder))
    _run(str(python), "-m", "pip", "install", "--quiet", "--no-deps", *peer.requirements)
    if peer.shares:
        packages = next(folder.glob("lib/python*/site-packages"))
        (packages / "shared.pth").write_text(sysconfig.get_path("purelib") + "\n")
    stamp.write_text(wanted)
    return python


def _run(*line: str) -> None:
    subprocess.run(line, check=True, capture_output=True, text=True)
