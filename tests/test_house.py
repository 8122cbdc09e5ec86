"""The house: who may import whom, how large a module may be, which names are public, what lies at the top."""

from __future__ import annotations

import ast
import importlib
import inspect
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from fnmatch import fnmatch
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import feature_lens
from feature_lens import errors
from feature_lens.distribution import VERSION

ROOT = Path(__file__).parents[1]
GROUND = {
    "arrays",
    "errors",
    "distribution",
    "registry",
    "ranking",
    "concepts",
    "examples",
    "modality",
    "labels",
    "nonfinite",
    "predictions",
    "cards",
    "feature_set",
    "run_contents",
    "weight_factors",
    "dual_record",
    "kept_table",
    "processes",
    "shown",
}
# Each room of the house, with the rooms that it may import from beside itself and the ground floor.
ROOMS: dict[str, set[str]] = {
    "ground": set(),
    "networks": set(),
    "features": {"networks"},
    "store": set(),
    "analysis": {"store"},
    "dual": {"networks", "features"},
    "dynamics": {"networks", "features", "dual"},
    "settings": {"features", "dual"},
    "jobs": {"networks", "features", "settings"},
    "extract": {"networks", "features", "dual", "dynamics", "settings", "jobs", "store"},
    "extract_kernel": {"networks", "features", "store"},
    "demos": {"networks", "settings", "extract", "store"},
    "studies": {"networks", "features", "dual", "settings", "extract", "store", "analysis"},
    "terminal": set(),
    "reading_commands": {"store", "analysis", "terminal"},
    "theory_commands": {"networks", "dual", "store", "analysis", "reading_commands", "terminal"},
    "study_command": {"studies", "terminal"},
    "cli": {
        *("networks", "features", "dual", "dynamics", "store", "analysis", "settings"),
        *(
            "extract",
            "extract_kernel",
            "demos",
            "reading_commands",
            "theory_commands",
            "study_command",
            "app",
            "terminal",
        ),
    },
    "app": {"store", "analysis"},
}
RIGHT = {"ground", "store", "analysis", "app"}
# Libraries that belong to some rooms alone.
LIBRARIES: dict[str, set[str]] = {
    "torch": {"networks", "features", "dual", "dynamics"},
    "captum": {"features"},
    "safetensors": {"networks"},
    "mlxtend": {"networks"},
    "h5py": {"store"},
    "streamlit": {"app"},
    "starlette": {"app"},
    "altair": {"app"},
    "networkx": {"analysis"},
    "typer": {"cli", "terminal", "reading_commands", "theory_commands", "study_command"},
    "matplotlib": {"analysis"},
    "numpy": set(ROOMS) - {"app", "cli", "reading_commands", "terminal"},
    "scipy": {"features", "dual", "dynamics", "analysis"},
    "sklearn": {"networks", "features", "dual", "analysis"},
}


def _modules() -> dict[str, Path]:
    """Every module of the two packages by its dotted name."""
    found: dict[str, Path] = {}
    for package in (ROOT / "feature_lens", ROOT / "app" / "feature_lens_app"):
        for path in package.rglob("*.py"):
            parts = [package.name, *path.relative_to(package).with_suffix("").parts]
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = _modules()


def _room(module: str) -> str:
    package, _, rest = module.partition(".")
    if package == "feature_lens_app":
        return "app"
    first = rest.split(".")[0]
    return "ground" if first in GROUND else first


def _imports(module: str) -> Iterator[str]:
    """Everything a module imports, wherever in it: dotted names of modules."""
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            assert node.module is not None
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module


def _in_rooms() -> list[str]:
    return sorted(set(MODULES) - {"feature_lens"})


def test_the_walk_sees_the_house() -> None:
    assert len(MODULES) > 50
    assert {_room(module) for module in _in_rooms()} == set(ROOMS)
    assert {module.split(".")[1] for module in MODULES if _room(module) == "ground"} == GROUND
    assert "feature_lens.store.schema" in set(_imports("feature_lens.store.reader"))
    assert "feature_lens.extract" in set(_imports("feature_lens.cli"))  # inside a function


@pytest.mark.parametrize("module", _in_rooms())
def test_imports_run_downwards_only(module: str) -> None:
    room = _room(module)
    allowed = ROOMS[room] | {room, "ground"}
    for name in _imports(module):
        if name in MODULES:
            assert name != "feature_lens", f"{module} imports the lazy front door"
            assert _room(name) in allowed, f"{module} ({room}) imports {name} ({_room(name)})"
        library = name.split(".")[0]
        assert room in LIBRARIES.get(library, set(ROOMS)), f"{module} ({room}) imports {library}"


def test_the_command_line_knows_of_the_app_only_how_it_is_started() -> None:
    names = {name for name in _imports("feature_lens.cli") if name.startswith("feature_lens_app")}
    assert names == {"feature_lens_app.launch"}


def test_only_the_terminal_is_printed_to_where_names_from_files_are_made_text() -> None:
    wrong = r"\bprint\(|typer\.(echo|secho|style)|sys\.std(out|err)\.write"
    told = [name for name, path in MODULES.items() if re.search(wrong, path.read_text(encoding="utf-8"))]
    assert told == ["feature_lens.terminal"]


def test_there_are_no_circles() -> None:
    graph = {module: {name for name in _imports(module) if name in MODULES} for module in _in_rooms()}
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError
    assert set(order) >= set(graph)


_HDF5 = (
    "reader",
    "stored",
    "chunks",
    "factors_reader",
    "dual_reader",
    "writer",
    "columns",
    "table_group",
    "kernel_file",
    "blocks",
    "hdf5_files",
)


def test_only_the_store_opens_hdf5() -> None:
    users = {module for module in MODULES if any(name.split(".")[0] == "h5py" for name in _imports(module))}
    assert users == {f"feature_lens.store.{name}" for name in _HDF5}


def test_reading_a_run_never_loads_torch() -> None:
    right = [module for module in _in_rooms() if _room(module) in RIGHT - {"app"}]
    assert len(right) > 20
    code = f"""
import importlib, sys
import feature_lens
assert "numpy" not in sys.modules, "the front door is not lazy"
for name in {right}:
    importlib.import_module(name)
feature_lens.open_run, feature_lens.Examples, feature_lens.Modality, feature_lens.Run, feature_lens.__version__
heavy = {{"torch", "captum", "streamlit", "altair"}} & set(sys.modules)
assert not heavy, heavy
feature_lens.Network
assert "torch" in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# Modules


@pytest.mark.parametrize("module", sorted(MODULES))
def test_modules_are_small_documented_and_named_for_what_they_do(module: str) -> None:
    text = MODULES[module].read_text(encoding="utf-8")
    assert len(text.splitlines()) < 400
    forbidden = {"util", "utils", "helper", "helpers", "common", "core", "manager", "base", "misc"}
    assert not forbidden & set(module.split("."))
    if text.strip():
        assert ast.get_docstring(ast.parse(text)), "a module says what it is"


def test_a_folder_holds_more_than_one_file() -> None:
    for package in (ROOT / "feature_lens", ROOT / "app" / "feature_lens_app"):
        for folder in [package, *(path for path in package.rglob("*") if path.is_dir())]:
            files = list(folder.glob("*.py"))
            assert len(files) != 1, folder


# Public names

PUBLIC = {
    "feature_lens": """
        Canonical EffectiveFeatures Eigen Examples ExtractSettings Modality Network NeuronActivations Run SetSettings
        Unit __version__ compute_run extract_run open_run
    """,
    "feature_lens.networks": "Network load_checkpoint",
    "feature_lens.networks.zoo": """
        ZOO Digits LanguageModel Linear Mnist ModularAddition ModularTransformer Superposition Training ZooNet
    """,
    "feature_lens.features.bases": """
        BASES Basis Canonical Deflated Dictionary Directions Eigen Ica Layerwise Learnt Nmf Pca Sae Sketch Unit
        UnitBlocks Varimax
    """,
    "feature_lens.features.rules": "RULES Dense Factor GradientId Layout NoRule Outer Rule Use contracted scaled",
    "feature_lens.features.kinds": "KINDS Ask Kind Source",
    "feature_lens.dual": """
        Contributions EigenContributions Fidelity Grouped Interactions Regressions Ridge Spectral Ticket contributions
        fit_ridge interactions regressions tickets
    """,
    "feature_lens.dual.perturbation": """
        ClosedForm Derivatives Displacement Linearised Schedule closed_form displacement outputs_after train
    """,
    "feature_lens.dynamics": "DynamicsSettings FinalFeatures dynamics_tables parsed_snapshots steps_of",
    "feature_lens.studies": "STUDIES Contender ContenderStudy Study",
    "feature_lens.store": "RunFile check_apart check_folder check_writable kernel_file specification write_bytes write_run",
    "feature_lens.analysis": """
        ACCENT CLASS_COLOURS EXPORTERS ExportRequest FeatureView Matching QuantileRow RENDERERS Run Selectivity
        SheetGeometry TABLES TableRequest alt_text at_rank best_matches class_colour class_figures class_profile contact_sheet default_view
        direction_pictures diverging_png export_bytes export_name feature_histogram feature_notes feature_table
        find_runs format_value headline held_tables histogram jaccard_matrix labelled_sheet open_run parameter_shares quantile_rows
        range_row rank_window report_html report_name rows run_card selectivity set_table sheet_geometry similar_features spearman_matrix
        table_bytes table_name table_rows thumbnail_png top_purity verdict
    """,
}


@pytest.mark.parametrize("package", PUBLIC)
def test_exact_public_names(package: str) -> None:
    module = importlib.import_module(package)
    assert sorted(module.__all__) == sorted(PUBLIC[package].split())
    for name in module.__all__:
        public = getattr(module, name)
        if inspect.isclass(public) or inspect.isfunction(public):
            assert public.__doc__, f"{package}.{name} says nothing of itself"


def test_every_package_has_a_list_of_its_names_or_none_at_all() -> None:
    packages = {name for name, path in MODULES.items() if path.name == "__init__.py"}
    for package in packages - set(PUBLIC):
        assert not hasattr(importlib.import_module(package), "__all__"), package


def test_the_front_door() -> None:
    assert feature_lens.__version__ == VERSION
    assert dir(feature_lens) == feature_lens.__all__
    with pytest.raises(AttributeError, match="has no attribute 'netwrok'; it has Canonical"):
        feature_lens.netwrok  # noqa: B018  # asking for it is the test


# Errors


def _error_classes() -> list[str]:
    return [name for name, kind in vars(errors).items() if inspect.isclass(kind) and issubclass(kind, Exception)]


def test_every_error_is_raised_by_some_test() -> None:
    files = [path for path in ROOT.glob("tests/test_*.py") if path != Path(__file__)]
    tests = "\n".join(path.read_text(encoding="utf-8") for path in files)
    source = "\n".join(path.read_text(encoding="utf-8") for path in MODULES.values())
    assert errors.__doc__ is not None
    assert len(_error_classes()) >= 8
    for name in _error_classes():
        assert name in errors.__doc__
        kind = getattr(errors, name)
        assert issubclass(kind, errors.FeatureLensError)
        assert kind.__doc__
        if kind is errors.FeatureLensError:
            assert "raise FeatureLensError(" not in source
            continue
        assert re.search(rf"raise \(?{name}\(|-> {name}:", source), f"{name} is never raised"
        # Most are expected by name; that of the app reaches the user through the command line.
        assert re.search(rf"pytest\.raises\({name}\b", tests) or name == "AppError", f"no test raises {name}"
    for sentence in ("Port {busy} is busy", "There is no 'missing.h5'; give run files or folders"):
        assert sentence in tests


# Exceptions to the checks

IGNORES_IN_ALL = 60


def _python_files() -> list[Path]:
    return [path for part in ("feature_lens", "app", "tests") for path in sorted((ROOT / part).rglob("*.py"))]


def _comments(path: Path) -> Iterator[str]:
    text = path.read_text(encoding="utf-8")
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.string


def test_exceptions_to_the_checks_are_few_and_carry_a_reason() -> None:
    found: list[str] = []
    for path in _python_files():
        for comment in _comments(path):
            if re.search(r"type:\s*ignore|noqa|mypy:|ruff:|pragma", comment):
                found.append(f"{path.name}: {comment}")
                reasoned = r"# (type: ignore\[[a-z, -]+\]|noqa: [A-Z0-9, ]+)  # \S.{4,}"
                assert re.fullmatch(reasoned, comment), found[-1]
    assert 10 < len(found) <= IGNORES_IN_ALL, len(found)


# The top


def test_nothing_else_lies_at_the_top() -> None:
    allowed = {
        *("feature_lens", "app", "tests", "data"),
        *("README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml", "constraints.txt", "Makefile"),
    }
    ignored = [line.rstrip("/") for line in (ROOT / ".gitignore").read_text(encoding="utf-8").split()]
    there = {
        path.name
        for path in ROOT.iterdir()
        if not path.name.startswith(".") and not any(fnmatch(path.name, pattern) for pattern in ignored)
    }
    assert there == allowed
    assert (ROOT / ".ci" / "run").is_file()


def test_tests_have_no_way_out() -> None:
    """No test is skipped or expected to fail, wherever it runs."""
    for path in ROOT.glob("tests/test_*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        assert not {"skip", "skipif", "xfail", "importorskip"} & used, path.name
