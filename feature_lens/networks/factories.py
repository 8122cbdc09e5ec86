"""Factories named on the command line: 'pkg.mod:make' or 'file.py:make'."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from feature_lens.arrays import is_sparse
from feature_lens.errors import ExamplesError, FeatureLensError, NetworkError, SettingsError, in_brief
from feature_lens.examples import Examples


def call_factory(spec: str) -> Any:
    """What the function named by 'pkg.mod:make' or 'file.py:make' returns when called without arguments.

    Modules in the working directory, and those beside the file, are found after what is installed.
    Raises SettingsError where it cannot be found, or where it raises something itself.
    """
    where, _, name = spec.rpartition(":")
    if not where or not name.isidentifier():
        raise SettingsError(f"A factory is named 'pkg.mod:make' or 'file.py:make', but '{spec}' came; write it so.")
    factory = getattr(_module(where, spec), name, None)
    if not callable(factory):
        raise SettingsError(f"'{where}' has no function '{name}'; define it, without arguments, or correct the name.")
    return _called(factory, spec)


def _called(factory: Callable[[], Any], spec: str) -> Any:
    try:
        return factory()
    except FeatureLensError:
        raise
    except (Exception, SystemExit) as error:  # the user's function may raise anything; told in one sentence
        raise SettingsError(
            f"The factory '{spec}' raised {type(error).__name__}: {in_brief(error)}; mend it, or see the whole trace with --debug."
        ) from error


def _module(where: str, spec: str) -> ModuleType:
    path = Path(where)
    folder = str((path.parent if where.endswith(".py") else Path.cwd()).absolute())
    if folder not in sys.path:
        sys.path.append(folder)  # last, so that nothing installed is shadowed by what lies beside the user's file
    try:
        if not where.endswith(".py"):
            return importlib.import_module(where)
        if not path.is_file():
            raise SettingsError(f"There is no file '{where}' for the factory '{spec}'; correct the path.")
        loaded = importlib.util.spec_from_file_location(f"factory_{path.stem}", path)
        if loaded is None or loaded.loader is None:
            raise SettingsError(f"'{where}' cannot be loaded as Python; give a .py file.")
        module = importlib.util.module_from_spec(loaded)
        sys.modules[loaded.name] = module  # dataclasses and pickles inside it look themselves up there
        loaded.loader.exec_module(module)
        return module
    except FeatureLensError:
        raise
    except (Exception, SystemExit) as error:  # importing the user's code may raise anything; told in one sentence
        raise SettingsError(
            f"'{where}' could not be imported ({type(error).__name__}: {in_brief(error)}); mend it, or see the trace with --debug."
        ) from error


def make_module(spec: str) -> torch.nn.Module:
    """The module that a factory makes; raises NetworkError when it makes something else."""
    made = call_factory(spec)
    if not isinstance(made, torch.nn.Module):
        raise NetworkError(f"The factory '{spec}' must return a torch.nn.Module, but {type(made).__name__} came.")
    return made


def make_examples(spec: str) -> Examples:
    """The examples that a factory makes: Examples, a tuple (inputs, targets), a map-style data set, or an array."""
    made = call_factory(spec)
    if isinstance(made, Examples):
        return made
    if isinstance(made, tuple):
        if len(made) != 2:
            raise ExamplesError(f"The factory '{spec}' must return (inputs, targets), but {len(made)} parts came.")
        return Examples.from_arrays(*made)
    if hasattr(made, "__array__") or is_sparse(made):
        return Examples.from_arrays(made)
    return Examples.from_dataset(made)
