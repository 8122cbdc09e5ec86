"""The run file, format version 1.3.

One run is one HDF5 file, written once and never changed. It is complete in itself: the inputs of the examples travel
inside. Any HDF5 reader opens it: only the built-in filters gzip and shuffle are used, on all but small data sets; chunks
are at most 1 MiB, and there are no links, references or virtual data sets. Text is UTF-8, at most 64 KiB each. What is one JSON value is
marked (JSON).

The HDF5 file is followed by 85 bytes that HDF5 does not look at: "feature_lens sha256 ", the sha256 of all bytes before
in hexadecimal, a line feed. A reader checks them first, because a damaged file can bring HDF5 itself down.

Letters: n examples, c outputs, p parameters, l parameter tensors, k features, v views, m kept extremes, q classes,
d columns of a concept.
Rows of anything that has one row per example and output are numbered example * c + output. Everything about features
is feature-major, so one feature is one contiguous read.

Attributes of the root
    format           "feature_lens run"
    format_version   "major.minor"; a reader refuses a newer major version, and ignores what a newer minor one added
    name             name of the run
    settings         (JSON) all settings that shaped the numbers
    software         (JSON) names and versions of the software that computed it
    fingerprint      sha256 over network, examples, settings and program version
    remarks          (JSON) list of what the computation wants to be known, such as a fallback that was taken
    complete         true; written last, so a file without it is not a run

Attributes of /network
    name, architecture (as text), n_outputs, digest (sha256 of structure and parameters), metrics (JSON: name -> number)

Attributes of /examples
    modality (JSON: kind, shape, low, high, channels_last (since 1.3)), class_names (JSON list), vocabulary (JSON list),
    inferred (JSON list, since 1.3, may be absent): sentences on how targets, outputs and inputs were read

Attributes of /examples/concepts/<name> (since 1.3, may be absent): what is known of the examples beside their targets; a
name is of up to 80 characters, none of them "/", the first of them no "."
    place     order of the concept among the concepts, from 0
    labels    (JSON) names of its d columns, all different

Attributes of /sets/<set name>; a name holds letters, digits, "_", "-" and ".", the first of them neither "-" nor "."
    place     order of the set among the sets, from 0
    views     (JSON) list of view names: "activation", "score", "output:<i>", "largest", "own", "predicted"
    card      (JSON) title, description, design, basis, outputs, score, equals, kernel_share, fitted_on, n_fitted,
              reads_labels (since 1.3), provenance (settings, software, fingerprint, remarks)

Groups /sets/<set name>/factors/<number> (since 1.1, may be absent; numbers count from 0): from them the value of any
feature on any example follows, where the set has no `values`. Letters of one such group: o outputs, i inputs and t
positions of a linear map, m features; r quantities per example: the outputs of the network, or what an output reduction
made of them. A group holds either `g` and groups inputs/<number>, or `gradient` and `entry`. `entry` are numbers of
features, for inputs in the order (o, i), m = o i; each feature is in at least one entry, and its value is the sum over
all. What comes in is `a`, or `token`, which stands for a one-hot row of `kinds` entries, or with neither ones, i = 1.
The feature (o, i) has on example n for quantity r the value   scale * sum over t of g[o, n, r, t] a[i, n, t].
The views are the quantities in their order, or, if "largest" is among them: "largest" is the value of largest magnitude
over r, "own" that of the example's label, "predicted" that of the largest of its outputs in /examples/output.

Attributes of /sets/<set name>/factors/<number>/inputs/<number>
    scale     sqrt(lambda), which `gradient` carries already
    kinds     number of kinds of tokens; 0 where there are none

Attributes of /dual (since 1.2, may be absent)
    fidelities   (JSON) list of regressions on features: kernel, reduction, target, form, ridge, left_out_r2, r2,
                 agreement, accuracy; null where there is no such figure
    fitted       (JSON) which of them `prediction` and what follows it belong to; null without
    notes        (JSON) list of sentences that stand beside any display of the regressions
    remarks      (JSON) list of what the computation wants to be known
    expansion    (JSON) null, or the training that the expansion about theta0 is of and how far it holds: step, time
                 (null: to the end), matched, examples, kernel_change, displacement, relative_displacement, and orders,
                 a list of name, size, r2, agreement (null for one output)

Attributes of /kernel (since 1.2, absent unless it was asked for): the neural tangent kernel of the effective features of
all parameters, with their learning rates. Its data set is not compressed.
    outputs      "trace": summed over outputs, s = n; "flattened": s = n c rows, example * c + output

Groups /tables/<table name> (since 1.3, may be absent): figures that belong to no single feature set. Data sets are called
"0", "1" and so on, one for each column, all of one length: int, bool, float or text.

Attributes of /tables/<table name>; a name is made as that of a set
    title, text  what the table holds, in words
    columns      (JSON) list of the columns' names

Tables of training dynamics, rows in the order of steps; kernels are summed over outputs, "fitted" examples are those of
training, PART is training, held_out or all, and what does not apply is absent:
    dynamics           a row for each step: step; loss_PART (half the squared distance from the targets, one-hot for
                       labels), cross_entropy_PART, accuracy_PART or r2_PART; trace and effective_rank of the kernel of the
                       fitted examples; change_from_initial/_final (Frobenius, relative to that one), distance_from_... (1 -
                       cosine), centred_distance_from_... (the mean feature taken off); alignment_PART with the targets,
                       centred; overlap_with_final and _learnt (what the last kernel has outside the leading eigenspace of
                       the first) of the leading eigenspace; r2, agreement and accuracy _from_labels and _from_outputs
                       (of regressions, held-out, beside the network of that step)
    dynamics_spectrum  step, number, eigenvalue, share of the trace
    dynamics_concepts  step, concept, alignment, overlap of the leading eigenspace with the concept, chance: what
                       an eigenspace at random would give
    feature_history    set, feature, step, matched (number of the feature it is matched to there, -1: none), eigenvalue
                       of that; correlation_to_later and _to_final, magnitudes; within_leading: share of its variation in
                       the span of all leading features of the step; group, group_overlap: the same of its group of
                       near-degenerate features in the span of their matches

Data sets (name, dimensions, type, meaning; those marked * may be absent). What stands in brackets bounds whole numbers:
[-1..n] from -1 to below n, [0..=n] to n itself, [0..] of 0 or more, [order] each number below the length once. A reader
refuses a file that holds others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

FORMAT: Final = "feature_lens run"
MAJOR: Final = 1
MINOR: Final = 3
VERSION: Final = f"{MAJOR}.{MINOR}"


@dataclass(frozen=True)
class Element:
    """One data set: dimensions as letters ('...' stands for any number more), numpy kinds that it may have, meaning,
    the minor version that brought it, and bounds of whole numbers: "-1..n" from -1 to below n, "0..=n" to n itself, "0.."
    of 0 or more, "order" each number below its length once, "any" where there are none."""

    name: str
    dims: str
    kinds: str
    meaning: str
    optional: bool = False
    minor: int = 0
    bounds: str = ""


NETWORK: Final = (
    Element("parameters/name", "l", "S", "name of each trainable parameter tensor, in the order of theta"),
    Element("parameters/shape", "l", "S", "(JSON) its shape"),
    Element("parameters/learning_rate", "l", "f", "lambda of its group; features carry sqrt(lambda)"),
    Element("trained", "p", "f", "theta*, tensors flattened in C order and joined"),
    Element("initial", "p", "f", "theta0", optional=True),
)

EXAMPLES: Final = (
    Element("id", "n", "iS", "unique id", bounds="any"),
    Element("input", "n ...", "iufb", "what went into the network", bounds="any"),
    Element("output", "n c", "f", "what came out of it"),
    Element("duplicate_group", "n", "i", "position of the first example with the very same input", bounds="0..n"),
    Element("target", "n ...", "iuf", "class label, or real values (n) or (n c)", optional=True, bounds="any"),
    Element("training", "n", "b", "true for training examples; absent when there is no split", optional=True),
)

CONCEPT: Final = (Element("value", "n d", "f", "the known numbers of each example, all finite", False, 3),)

SET: Final = (
    Element(
        "highest/position",
        "k v m",
        "i",
        "positions of the highest examples, best first; -1 where there are fewer",
        bounds="-1..n",
    ),
    Element("highest/value", "k v m", "f", "their values; NaN where position is -1"),
    Element("lowest/position", "k v m", "i", "positions of the lowest examples, lowest first", bounds="-1..n"),
    Element("lowest/value", "k v m", "f", "their values"),
    Element("mean", "k v", "f", "mean of the finite values over all examples"),
    Element("std", "k v", "f", "their population standard deviation"),
    Element("minimum", "k v", "f", "their minimum"),
    Element("maximum", "k v", "f", "their maximum; equal to the minimum for a constant feature, both 0 for a dead one"),
    Element(
        "n_nonfinite", "k v", "i", "number of values that are NaN or infinite; they are not ranked", bounds="0..=n"
    ),
    Element("first_nonfinite", "k v", "i", "position of the first such example, -1 for none", bounds="-1..n"),
    Element(
        "order",
        "k",
        "i",
        "features in their default order: by spectrum where there is one, else by spread",
        bounds="order",
    ),
    Element("class_mean", "k v q", "f", "mean over the examples of each class", optional=True),
    Element(
        "values", "k v n", "f", "value of every example; absent for sets that are too large to keep", optional=True
    ),
    Element(
        "histogram",
        "k v b",
        "i",
        "counts in b equal bins from minimum to maximum, where values are absent",
        optional=True,
        bounds="0..",
    ),
    Element("labels", "k", "S", "name of each feature; absent where feature number = entry of theta", optional=True),
    Element("spectrum", "k", "f", "eigenvalue of the kernel on the fitted examples", optional=True),
    Element(
        "group",
        "k",
        "i",
        "number of the group of near-degenerate eigenvalues a feature is in",
        optional=True,
        bounds="0..",
    ),
    Element(
        "stability",
        "k",
        "f",
        "cosine of the angle between two half-split fits: principal angle, or features matched",
        True,
    ),
    Element(
        "mean_share",
        "k",
        "f",
        "share of a feature's energy that is its mean; near 1: the feature is the mean",
        optional=True,
    ),
    Element("profile", "k c", "f", "weights w of the outputs in the score", optional=True),
    Element("energy", "k", "f", "share of the energy over outputs that the score carries", optional=True),
    Element("direction", "k ...", "f", "unit direction in parameter space, (k p) or (k c p) for trace", optional=True),
    Element("parameter_share", "k l", "f", "share of the squared direction in each parameter tensor", optional=True),
    Element("layer", "k", "S", "layer that a unit or neuron belongs to", optional=True),
    Element(
        "location",
        "k n",
        "i",
        "flat index of the spatial maximum that gave the value, -1 where there is none",
        optional=True,
        bounds="-1..",
    ),
    Element(
        "location_shape",
        "k s",
        "i",
        "spatial shape in which location counts, padded with 0",
        optional=True,
        bounds="0..",
    ),
    Element(
        "highest/output",
        "k v m",
        "i",
        "output that gave the value, in the view 'largest'",
        optional=True,
        bounds="-1..c",
    ),
    Element(
        "lowest/output",
        "k v m",
        "i",
        "output that gave the value, in the view 'largest'",
        optional=True,
        bounds="-1..c",
    ),
    Element("residual", "k", "f", "|H u - w u| / w of the eigenpair", optional=True, minor=1),
    Element("ablation/loss", "k", "f", "change of the held-out mean of 1/2 sum (f - y)^2 without the feature", True, 2),
    Element("ablation/accuracy", "k", "f", "change of the held-out accuracy without it", True, 2),
    Element("ablation/output", "k c", "f", "mean held-out change of each output without it", True, 2),
    Element("ablation/example", "k n", "f", "change of the predicted output of each example without it", True, 2),
    Element("ablation/highest", "k v m", "f", "change of the predicted output on its highest examples", True, 2),
    Element("ablation/lowest", "k v m", "f", "change of the predicted output on its lowest examples", True, 2),
)

FACTOR: Final = (
    Element("g", "o n r t", "f", "gradients of the quantities with respect to the map's outputs", True, 1),
    Element("gradient", "m n r", "f", "without that form: the features themselves", True, 1),
    Element("entry", "m", "i", "which features those are", True, 1, bounds="0.."),
)

DUAL: Final = (
    Element("initial_output", "n c", "f", "outputs at theta0", True, 2),
    Element("residual", "n c", "f", "what the sum of all contributions leaves of output - initial_output", True, 2),
    Element("tensor/contribution", "n c l", "f", "contributions summed over each parameter tensor", True, 2),
    Element("layer/name", "g", "S", "name of each layer", True, 2),
    Element("layer/contribution", "n c g", "f", "contributions summed over each layer", True, 2),
    Element(
        "unit/name", "u", "S", "name of each unit; a parameter that belongs to none stands for its tensor", True, 2
    ),
    Element("unit/contribution", "n c u", "f", "contributions summed over each unit, its bias included", True, 2),
    Element("eigen/contribution", "n c e", "f", "contributions of leading eigen features, flattened", True, 2),
    Element("weight", "p", "f", "mean absolute contribution of each weight, training examples and outputs", True, 2),
    Element(
        "strongest/weight", "n c m", "i", "weights of largest contribution, the strongest first", True, 2, bounds="0..p"
    ),
    Element("strongest/contribution", "n c m", "f", "what they contribute", True, 2),
    Element("prediction", "n c", "f", "what the dual model says of each example", True, 2),
    Element("coefficient", "a c", "f", "its dual coefficients, training examples in their order", True, 2),
    Element(
        "support/position", "n c s", "i", "training examples that a prediction rests on most", True, 2, bounds="0..n"
    ),
    Element("support/contribution", "n c s", "f", "what they contribute to it", True, 2),
    Element("ticket/order", "t", "S", "order in which features were kept", True, 2),
    Element("ticket/kind", "t", "S", "sum of contributions, or network at theta0 + mask * (theta* - theta0)", True, 2),
    Element("ticket/kept", "t", "i", "how many of them", True, 2, bounds="0.."),
    Element("ticket/figure", "t i", "f", "R2, agreement, accuracy held out; agreement on training; NaN: none", True, 2),
    Element("interaction/mean", "f f", "f", "mean interaction of the leading eigen features, flattened", True, 2),
    Element("interaction/size", "f f", "f", "root of the mean square, over examples and outputs", True, 2),
    Element("interaction/threshold", "z", "f", "what a size stands above to be an edge, by turned directions", True, 2),
    Element("interaction/predicted", "n f f", "f", "interactions in each example's largest output", True, 2),
    Element("expansion/leading", "n c", "f", "outputs by the expansion about theta0 to leading order", True, 2),
    Element("expansion/next", "n c", "f", "what next-to-leading order in 1 / width adds", True, 2),
    Element("expansion/squared", "n c", "f", "what terms of second order in dNTK add", True, 2),
    Element("map", "c p c", "f", "from effective features (output, parameter) to the dual model's outputs", True, 2),
)

KERNEL: Final = (Element("value", "s s", "f", "products of the features of two examples", False, 2),)

INPUT: Final = (
    Element("entry", "m", "i", "which features, in the order (o, i)", False, 1, bounds="0.."),
    Element("a", "i n t", "f", "inputs of the map", True, 1),
    Element("token", "n t", "i", "tokens in their place", True, 1, bounds="0.."),
)


@dataclass(frozen=True)
class TableColumns:
    """What the program reads of a table: columns with their numpy kinds, and those that together tell rows apart;
    `numbers`: all its columns hold numbers."""

    columns: Mapping[str, str]
    keys: tuple[str, ...]
    numbers: bool = False


_FIGURES: Final = ("trace", "effective_rank", "overlap_with_final")
_DISTANCES: Final = ("centred_distance_from_final", "centred_distance_from_initial")
_HISTORY: Final = ("eigenvalue", "correlation_to_final", "within_leading", "group_overlap")

TABLES: Final[Mapping[str, TableColumns]] = {
    "dynamics": TableColumns({"step": "i", **dict.fromkeys((*_FIGURES, *_DISTANCES), "fi")}, ("step",), True),
    "dynamics_spectrum": TableColumns(
        {"step": "i", "number": "i", "eigenvalue": "fi", "share": "fi"}, ("step", "number"), True
    ),
    "dynamics_concepts": TableColumns(
        {"step": "i", "concept": "U", **dict.fromkeys(("alignment", "overlap", "chance"), "fi")}, ("step", "concept")
    ),
    "feature_history": TableColumns(
        {"set": "U", "feature": "i", "step": "i", "group": "fi", **dict.fromkeys(_HISTORY, "fi")},
        ("set", "feature", "step"),
    ),
}


def specification() -> str:
    """The whole specification as text: this module's docstring and the table of data sets."""
    lines = [(__doc__ or "").rstrip()]
    factor = "/sets/<set name>/factors/<number>"
    for folder, elements in (
        ("/network", NETWORK),
        ("/examples", EXAMPLES),
        ("/examples/concepts/<name>", CONCEPT),
        ("/sets/<set name>", SET),
        (factor, FACTOR),
        (f"{factor}/inputs/<number>", INPUT),
        ("/dual", DUAL),
        ("/kernel", KERNEL),
    ):
        lines.append(f"  {folder}")
        for element in elements:
            name = element.name + ("*" if element.optional else "")
            types = "/".join(
                {"i": "int", "u": "uint", "f": "float", "b": "bool", "S": "text"}[k] for k in element.kinds
            )
            since = f" (since {MAJOR}.{element.minor})" if element.minor else ""
            bounds = f" [{element.bounds}]" if element.bounds not in ("", "any") else ""
            lines.append(f"    {name:27} ({element.dims}) {types}: {element.meaning}{bounds}{since}")
    return "\n".join(lines) + "\n"
