"""Studies: feature sets of the zoo's networks held against each other, one file for each question.

To add one, write a module that enters a `Study` in `STUDIES` under its name, and import it here.
"""

from feature_lens.studies import digits as digits
from feature_lens.studies import modular_mlp as modular_mlp
from feature_lens.studies import superposition as superposition
from feature_lens.studies.study import STUDIES, Contender, Study

__all__ = ["STUDIES", "Contender", "Study"]
