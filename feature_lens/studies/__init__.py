"""Studies: feature sets of the zoo's networks held against each other, one file for each question.

To add one, write a module that enters a `ContenderStudy` (or another `Study`) in `STUDIES` under its name, and import it here.
"""

from feature_lens.studies import digits as digits
from feature_lens.studies import language_model as language_model
from feature_lens.studies import mnist as mnist
from feature_lens.studies import modular_mlp as modular_mlp
from feature_lens.studies import modular_transformer as modular_transformer
from feature_lens.studies import optimisers as optimisers
from feature_lens.studies import superposition as superposition
from feature_lens.studies.contender_study import ContenderStudy
from feature_lens.studies.contenders import Contender
from feature_lens.studies.study import STUDIES, Study

__all__ = ["STUDIES", "Contender", "ContenderStudy", "Study"]
