"""The run file, format version 1.0.

One run is one HDF5 file, written once and never changed. It is complete in itself: the inputs of the examples travel
inside. Any HDF5 reader opens it: only the built-in filters gzip and shuffle are used, on all but small data sets; chunks
are at most 1 MiB, and there are no links, references or virtual data sets. Text is UTF-8. What is one JSON value is
marked (JSON).

The HDF5 file is followed by 85 bytes that HDF5 does not look at: "feature_lens sha256 ", the sha256 of all bytes before
in hexadecimal, a line feed. A reader checks them first, because a damaged file can bring HDF5 itself down.

Letters: n examples, c outputs, p parameters, l parameter tensors, k features, v views, m kept extremes, q classes.
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
    modality (JSON: kind, shape, low, high), class_names (JSON list), vocabulary (JSON list)

Attributes of /sets/<set name>; a name holds letters, digits, "_", "-" and ".", the first of them neither "-" nor "."
    place     order of the set among the sets, from 0
    views     (JSON) list of view names: "activation", "score", "output:<i>", "largest", "own", "predicted"
    card      (JSON) title, description, design, basis, outputs, score, equals, kernel_share, fitted_on, n_fitted,
              provenance (settings, software, fingerprint, remarks)

Data sets (name, dimensions, type, meaning; those marked * may be absent)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

FORMAT: Final = "feature_lens run"
MAJOR: Final = 1
MINOR: Final = 0
VERSION: Final = f"{MAJOR}.{MINOR}"


@dataclass(frozen=True)
class Element:
    """One data set: dimensions as letters ('...' stands for any number more), numpy kinds that it may have, meaning."""

    name: str
    dims: str
    kinds: str
    meaning: str
    optional: bool = False


NETWORK: Final = (
    Element("parameters/name", "l", "S", "name of each trainable parameter tensor, in the order of theta"),
    Element("parameters/shape", "l", "S", "(JSON) its shape"),
    Element("parameters/learning_rate", "l", "f", "lambda of its group; features carry sqrt(lambda)"),
    Element("trained", "p", "f", "theta*, tensors flattened in C order and joined"),
    Element("initial", "p", "f", "theta0", optional=True),
)

EXAMPLES: Final = (
    Element("id", "n", "iS", "unique id"),
    Element("input", "n ...", "iufb", "what went into the network"),
    Element("output", "n c", "f", "what came out of it"),
    Element("duplicate_group", "n", "i", "position of the first example with the very same input"),
    Element("target", "n ...", "iuf", "class label, or real values (n) or (n c)", optional=True),
    Element("training", "n", "b", "true for training examples; absent when there is no split", optional=True),
)

SET: Final = (
    Element(
        "highest/position", "k v m", "i", "positions of the highest examples, best first; -1 where there are fewer"
    ),
    Element("highest/value", "k v m", "f", "their values; NaN where position is -1"),
    Element("lowest/position", "k v m", "i", "positions of the lowest examples, lowest first"),
    Element("lowest/value", "k v m", "f", "their values"),
    Element("mean", "k v", "f", "mean of the finite values over all examples"),
    Element("std", "k v", "f", "their population standard deviation"),
    Element("minimum", "k v", "f", "their minimum"),
    Element("maximum", "k v", "f", "their maximum; equal to the minimum for a constant feature, both 0 for a dead one"),
    Element("n_nonfinite", "k v", "i", "number of values that are NaN or infinite; they are not ranked"),
    Element("first_nonfinite", "k v", "i", "position of the first such example, -1 for none"),
    Element("order", "k", "i", "features in their default order: by spectrum where there is one, else by spread"),
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
    ),
    Element("labels", "k", "S", "name of each feature; absent where feature number = entry of theta", optional=True),
    Element("spectrum", "k", "f", "eigenvalue of the kernel on the fitted examples", optional=True),
    Element("group", "k", "i", "number of the group of near-degenerate eigenvalues a feature is in", optional=True),
    Element(
        "stability", "k", "f", "cosine of the principal angle between the two half-split fits, 1 = same", optional=True
    ),
    Element(
        "mean_share",
        "k",
        "f",
        "share of a feature's energy that is its mean; near 1: the feature is the mean",
        optional=True,
    ),
    Element("residual", "k", "f", "|H u - w u| / w of the eigenpair", optional=True),
    Element("profile", "k c", "f", "weights w of the outputs in the score", optional=True),
    Element("energy", "k", "f", "share of the energy over outputs that the score carries", optional=True),
    Element("direction", "k ...", "f", "unit direction in parameter space, (k p) or (k c p) for trace", optional=True),
    Element("parameter_share", "k l", "f", "share of the squared direction in each parameter tensor", optional=True),
    Element("layer", "k", "S", "layer that a unit or neuron belongs to", optional=True),
    Element("location", "k n", "i", "flat index of the spatial maximum that gave the value", optional=True),
    Element("location_shape", "k s", "i", "spatial shape in which location counts, padded with 0", optional=True),
    Element("highest/output", "k v m", "i", "output that gave the value, in the view 'largest'", optional=True),
    Element("lowest/output", "k v m", "i", "output that gave the value, in the view 'largest'", optional=True),
)


def specification() -> str:
    """The whole specification as text: this module's docstring and the table of data sets."""
    lines = [(__doc__ or "").rstrip()]
    for folder, elements in (("/network", NETWORK), ("/examples", EXAMPLES), ("/sets/<set name>", SET)):
        lines.append(f"  {folder}")
        for element in elements:
            name = element.name + ("*" if element.optional else "")
            types = "/".join(
                {"i": "int", "u": "uint", "f": "float", "b": "bool", "S": "text"}[k] for k in element.kinds
            )
            lines.append(f"    {name:27} ({element.dims}) {types}: {element.meaning}")
    return "\n".join(lines) + "\n"
