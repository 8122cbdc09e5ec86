"""Studies: complete tables over seeds, answers that their figures support, and work that is not done twice."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import synthetic

from feature_lens.analysis import open_run, table_rows
from feature_lens.analysis.study.answer import answer, verdicts
from feature_lens.analysis.study.families import CONTROLS, EFFECTIVE, LOGITS, NEURONS, OTHER, PCA, SHUFFLED
from feature_lens.analysis.study.figure import study_figure
from feature_lens.analysis.study.table import study_frame, study_sentences
from feature_lens.analysis.tables import TableRequest
from feature_lens.analysis.torus import mode_correlations, modes
from feature_lens.errors import OutputError, SettingsError
from feature_lens.examples import Examples, Modality
from feature_lens.extract import ExtractSettings, SetSettings, compute_run
from feature_lens.feature_set import FeatureSet, ranking_columns
from feature_lens.networks.zoo import ZOO, Digits, ModularTransformer
from feature_lens.ranking import rank_values
from feature_lens.studies import STUDIES, Contender, ContenderStudy
from feature_lens.studies.contender_study import baselines
from feature_lens.studies.contenders import seed_contents
from feature_lens.studies.language_model import concept_words
from feature_lens.studies.modular_transformer import published_table, published_words
from feature_lens.studies.optimisers import OptimiserStudy
from feature_lens.studies.running import run_studies, seed_run
from feature_lens.studies.waves import wave_table


@dataclass(frozen=True)
class _Few(Digits):
    """A small net on every twelfth digit."""

    widths: tuple[int, ...] = (64, 6, 10)
    epochs: int = 100

    def examples(self) -> Examples:
        return super().examples().on(np.arange(0, 1797, 12))


# Fits of NMF, ICA and dictionaries are tested elsewhere.
_FEW = tuple(one for one in baselines() if one.family != OTHER)
TINY = ContenderStudy(
    question="Is anything to be seen?",
    net="few",
    contenders=(Contender("eigen/trace", EFFECTIVE), Contender("deflated/trace", EFFECTIVE), *_FEW),
    components=6,
    seeds=(0, 1),
    draws=20,
    keep=4,
)


@pytest.fixture(scope="module")
def registered() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ZOO._entries, "few", _Few)
        patch.setitem(STUDIES._entries, "tiny", TINY)
        yield


@pytest.fixture(scope="module")
def folder(registered: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("studies")
    paths = run_studies(["tiny"], made, workers=1)["tiny"]
    assert [path.name for path in paths] == ["tiny.h5", "tiny.csv", "tiny.png", "tiny.md", "tiny.seeds.csv"]
    return made


def test_every_registered_study_is_complete() -> None:
    assert {"digits", "modular-mlp", "superposition", "optimisers"} <= set(STUDIES)
    for study in STUDIES.values():
        assert len(study.seeds) >= 3
        assert study.question.endswith("?")
        if isinstance(study, ContenderStudy):
            ZOO[study.net].from_text(study.recipe)
            assert {"deflated", "unit_blocks"} <= {one.spec.partition("/")[0] for one in study.contenders}


def test_deflated_and_unit_blocks_are_made_of_every_net_of_the_zoo() -> None:
    studied = {study.net for study in STUDIES.values() if isinstance(study, ContenderStudy)}
    assert set(ZOO) == studied | {"linear"}
    net = ZOO["linear"]()  # whose kernel does not change
    wanted = (SetSettings("deflated", "trace"), SetSettings("unit_blocks", "trace"))
    run = compute_run(net.shipped(), net.examples(), ExtractSettings(sets=wanted, neurons=()), progress=False)
    assert [len(one) for one in run.sets.values()] == [5, 6]


def test_a_study_without_a_control_is_refused() -> None:
    for family in set(CONTROLS) - {LOGITS}:
        with pytest.raises(SettingsError, match=f"incomplete without {family}"):
            replace(TINY, contenders=tuple(one for one in TINY.contenders if one.family != family))
    with pytest.raises(SettingsError, match="all different"):
        replace(TINY, seeds=(1, 1))
    with pytest.raises(SettingsError, match="A set competes as one of"):
        Contender("eigen/trace", "best")


def test_the_table_holds_means_over_seeds_of_every_set(folder: Path) -> None:
    runs = [open_run(folder / f"tiny_seed_{seed}.h5") for seed in TINY.seeds]
    table = pd.read_csv(folder / "tiny.csv").fillna({"set": ""})
    assert set(CONTROLS) | {EFFECTIVE} <= set(table["family"])
    assert set(table.loc[: table["family"].eq(EFFECTIVE).sum() - 1, "family"]) == {EFFECTIVE}  # first
    single = [{one.kind.name: one for one in TINY.measured(run)} for run in runs]
    for row in table.to_dict("records"):
        both = [of_seed[row["kind"]].figures for of_seed in single]
        for measure in ("class_auroc", "hoyer", "r2"):
            if all(measure in figures for figures in both):
                wanted = np.mean([figures[measure].value for figures in both])
                assert row[measure] == pytest.approx(wanted, abs=1e-12, nan_ok=True), (row["kind"], measure)
                assert not row[f"{measure}_low"] > row[f"{measure}_high"]
    assert table.loc[table["family"] == LOGITS, "features"].tolist() == [6]  # as many as every other set
    shuffled = table[table["family"] == SHUFFLED]
    assert shuffled["set"].str.startswith("shuffled_").all()
    for run in runs:
        run.close()


def test_the_run_of_a_study_holds_its_table_and_answer(folder: Path) -> None:
    table = pd.read_csv(folder / "tiny.csv").fillna({"set": ""})
    with open_run(folder / "tiny.h5") as run:
        kept = table_rows(run, TableRequest("study"))
        pd.testing.assert_frame_equal(kept, table, check_dtype=False, rtol=1e-12)
        seeds = table_rows(run, TableRequest("study_seeds"))
        assert set(seeds["seed"]) == set(TINY.seeds)
        sentences = study_sentences(run)
        assert "direction" not in run.sets["shuffled_eigen_trace"]
        assert run.provenance.settings["study"] == TINY.plain()
    assert (folder / "tiny.md").read_text() == "\n\n".join([f"# {TINY.question}", *sentences]) + "\n"
    assert (folder / "tiny.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_there_is_not_made_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def fail(*_: object) -> None:
        raise AssertionError("a seed was made again")

    monkeypatch.setattr(ContenderStudy, "contents", fail)
    run_studies(["tiny"], folder, workers=1)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    monkeypatch.setitem(STUDIES._entries, "tiny", dataclasses.replace(TINY, keep=3))
    with pytest.raises(OutputError, match=r"tiny.h5' was not made by this version of the study 'tiny'"):
        run_studies(["tiny"], folder, workers=1)
    with pytest.raises(OutputError, match=r"tiny_seed_0.h5' was made by another version of the study 'tiny'"):
        seed_run("tiny", 0, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    with pytest.raises(SettingsError, match="at least one process, but 0 came"):
        run_studies(["tiny"], folder, workers=0)
    with pytest.raises(OutputError, match="A folder was wanted"):
        run_studies(["tiny"], folder / "tiny.md")
    with pytest.raises(SettingsError, match=r"No study is called 'tinny'.*Did you mean 'tiny'"):
        run_studies(["tinny"], folder)


def _row(
    kind: str, family: str, auroc: tuple[float, float, float], needed: tuple[float, float, float]
) -> dict[str, object]:
    row: dict[str, object] = {"kind": kind, "set": kind, "family": family, "features": 4}
    for name, three in (("class_auroc", auroc), ("pursued_90", needed)):
        row |= dict(zip((name, f"{name}_low", f"{name}_high"), three, strict=True))
        row |= {f"{name}_null": np.nan, f"{name}_null_99": np.nan}
    return row


def test_the_first_sentence_names_neurons_logits_and_random_directions_where_they_win() -> None:
    own = _row("eigen", EFFECTIVE, (0.8, 0.75, 0.85), (9, 8, 10))
    worse = _row("worse", EFFECTIVE, (0.7, 0.6, 0.8), (20, 19, 21))
    neurons = _row("layer", NEURONS, (0.9, 0.86, 0.95), (12, 11, 13))
    pca = _row("pca", PCA, (0.86, 0.84, 0.88), (7, 6, 7.5))
    table = pd.DataFrame([own, worse, neurons, pca])
    first = answer(table, "toys")[0]
    assert first == (
        "On toys, of 2 measures the best effective features are beaten by neurons on 1 (AUROC by class), by other baselines "
        "alone on 1 more."
    )
    one, two = verdicts(table)
    assert ([best.family for best in one.beaten_by], one.wins, one.own.title) == ([NEURONS], False, "eigen")
    assert ([best.family for best in two.beaten_by], two.wins) == ([PCA], False)
    assert answer(table.drop(index=2), "toys")[0] == (
        "On toys, PCA of activations beat the best effective features on 1 of 2 measures (features to R2 .9 by pursuit); "
        "not told apart from the best other set on 1."
    )


def test_effective_features_win_only_where_intervals_lie_apart() -> None:
    own = _row("eigen", EFFECTIVE, (0.9, 0.88, 0.92), (5, 4, 6))
    near = _row("layer", NEURONS, (0.87, 0.85, 0.89), (8, 7, 9))
    table = pd.DataFrame([own, near])
    found = verdicts(table)
    assert [one.wins for one in found] == [False, True]
    said = answer(table, "toys")
    assert said[0] == (
        "On toys, effective features are beaten on none of 2 measures; they are ahead of every other set on 1 and not told "
        "apart from the best other set on 1."
    )
    assert said[2].startswith(
        "Features to R2 .9 by pursuit: the best effective features (eigen, 5, 4 to 6) are ahead of all"
    )
    assert answer(table[table["family"] == EFFECTIVE], "toys") == [
        "On toys nothing was measured of effective features and of another set alike."
    ]
    level = pd.DataFrame([own, _row("layer", NEURONS, (0.89, 0.87, 0.91), (5, 4, 6))])
    assert "are not told apart from the best other set on any of 2 measures" in answer(level, "toys")[0]
    assert study_figure(table, "toys").startswith(b"\x89PNG")


def test_waves_are_counted_in_features_that_are_waves() -> None:
    modulus = 7
    pairs = np.stack(np.divmod(np.arange(modulus**2), modulus), axis=1)
    made = synthetic.contents(modulus**2, "tokens")
    sums, differences = (modes(pairs, modulus, family) for family in ("a + b", "a - b"))
    mixed = np.linalg.qr(np.random.default_rng(0).standard_normal((6, 6)))[0]
    values = np.concatenate([(sums @ mixed).T, differences[:, :2].T, np.ones((1, modulus**2))]).astype(np.float32)
    columns = ranking_columns(rank_values(values[:, None], made.examples.ids, 4))
    order = np.arange(len(values), dtype=np.int32)
    card = replace(made.sets["neurons"].card, title="Waves")
    waves = FeatureSet("waves", ("activation",), card, {**columns, "values": values[:, None], "order": order})
    examples = replace(made.examples, inputs=pairs, modality=Modality("pair", (modulus, modulus)))
    found = wave_table(replace(made, examples=examples, sets={"waves": waves}))
    (row,) = found[found["kind"] == "Waves"].to_dict("records")
    assert row["a + b"] == pytest.approx(1)
    assert row["a - b"] == pytest.approx(1 / 3)
    # The difference's first frequency is followed, the sum's are mixed over frequencies.
    singles = [mode_correlations(values[:6].T.astype(float), pairs, modulus, "a + b").max(axis=0)]
    assert row["followed"] == 1 + int((np.concatenate(singles) >= 0.9).sum())
    assert row["by_chance"] == pytest.approx(8 / (modulus**2 - 1))


def test_the_language_model_is_answered_by_means_over_concepts() -> None:
    rows = [
        _row("eigen", EFFECTIVE, (0.8, 0.7, 0.9), (9, 8, 10)),
        _row("unit", EFFECTIVE, (0.8, 0.7, 0.9), (9, 8, 10)),
        _row("pca", PCA, (0.8, 0.7, 0.9), (9, 8, 10)),
    ]
    table = pd.DataFrame(rows)
    for name, values in (("words", (0.6, 0.9, 0.7)), ("lines", (0.7, 0.5, 0.8))):
        for end in ("", "_low", "_high", "_null", "_null_99"):
            table[f"auroc {name}{end}"] = values
    (said,) = concept_words(table, {})
    assert said.startswith("Mean AUROC over 2 concepts (words, lines)")
    assert ": PCA of activations 0.750 (pca), effective features 0.700 (unit)." in said
    assert concept_words(table[["kind", "set", "family", "features"]], {}) == []


def test_the_transformer_is_answered_layer_by_layer() -> None:
    shares = {"a + b in first": (0.9, 0.5, 0.895), "f(a) + f(b) in next": (0.2, 0.6, 0.3)}
    rows = [
        {
            "kind": kind,
            "set": name,
            "family": family,
            "module": module,
            "seed": seed,
            "tested": 1.0 - 0.2 * seed,
            **{column: share[place] - 0.1 * seed * (family == PCA) for column, share in shares.items()},
        }
        for seed in (0, 1)
        for place, (kind, name, family, module) in enumerate(
            [
                ("Layers", "layerwise", EFFECTIVE, "unembed"),
                ("Layers", "layerwise", EFFECTIVE, "mlp"),
                ("Components", "pca_stream", PCA, ""),
            ]
        )
    ]
    accuracy, low, first, following = published_words(pd.DataFrame(), {"published": pd.DataFrame(rows)})
    assert accuracy == "Accuracy on tested pairs: 1.000 at seed 0, 0.800 at seed 1."
    assert low.startswith("The network does not reach 99 % of tested pairs at seed 1;")
    assert (
        "most are in unembed 0.900 (seed 0), unembed 0.900 (seed 1); means over seeds unembed 0.900, mlp 0.500" in first
    )
    # A hundredth and less is no more.
    assert first.endswith(
        "pca_stream 0.895 (seed 0), pca_stream 0.795 (seed 1), so the kernel shows more than those at seed 1 alone."
    )
    assert "most are in mlp 0.600" in following
    assert following.endswith("so the kernel shows more than those at every seed.")


def test_the_unembedding_shows_what_components_of_its_input_show() -> None:
    net = ModularTransformer(modulus=7, width=16, heads=2, mlp=20, batch=0, epochs=2)
    contenders = (Contender("layerwise/sum", EFFECTIVE), Contender("pca/neurons:stream+uncentred", PCA))
    run = seed_contents(net, contenders, 20, ExtractSettings(keep=4, lenient=True, workers=1))
    found = published_table(run, net)
    layers = found[found["family"] == EFFECTIVE].set_index("module")
    assert set(layers.index) >= {"embed", "unembed", "mlp_out"}
    waves = [column for column in found if " in " in column]
    assert len(waves) == 9
    (components,) = found.loc[found["family"] == PCA, waves].to_numpy(dtype=float)
    # For the sum of outputs its kernel is that of its input, times the number of outputs.
    np.testing.assert_allclose(layers.loc["unembed", waves].astype(float), components, atol=1e-4)
    assert np.abs(layers.loc["mlp_out", waves].astype(float) - components).max() > 0.01
    right = np.asarray(run.outputs).argmax(axis=1) == run.examples.labels
    assert found["tested"].unique().tolist() == [right[net.tested].mean()]


def test_optimisers_are_compared_pair_by_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = OptimiserStudy(question="Which?", width=8, training=6, test=12, features=3, most_steps=12, seeds=(0, 1))
    monkeypatch.setitem(STUDIES._entries, "small", study)
    paths = run_studies(["small"], tmp_path, workers=1)["small"]
    assert {path.name for path in paths} == {
        f"small.{end}" for end in ("h5", "csv", "png", "md", "trained.csv", "pairs.csv")
    }
    table, pairs = pd.read_csv(tmp_path / "small.csv"), pd.read_csv(tmp_path / "small.pairs.csv")
    assert len(table) == 7 * 6 / 2  # six trainings and none
    one = pairs[(pairs["one"] == "descent, large step") & (pairs["other"] == "adamw, small step")]
    row = table[table["kind"] == "descent, large step and adamw, small step"].iloc[0]
    assert sorted(one["seed"]) == [0, 1]
    assert row["span"] == pytest.approx(one["overlap"].mean())
    assert (row["span_low"], row["span_high"]) == pytest.approx((one["overlap"].min(), one["overlap"].max()))
    assert row["matched"] == pytest.approx(one["correlation"].mean())
    with open_run(tmp_path / "small.h5") as run:
        assert len(run.sets) == 6
        assert len(study_frame(run)) == len(table)  # what the page draws
        assert "eigen_adamw_small_step" in run.sets
        assert study_sentences(run)[0].startswith("On a tanh network of two hidden layers (2 seeds), leading")
    before = (tmp_path / "small.h5").read_bytes()
    run_studies(["small"], tmp_path, workers=1)
    assert (tmp_path / "small.h5").read_bytes() == before
