"""Networks that come with the project, of which it is known what they should show.

To add one, write its recipe as a frozen dataclass in a module of its own, a subclass of `ZooNet` under
`@ZOO.register(name)`, import it here, and ship what `feature-lens train name --out data/name` writes; the tests of
the zoo then run on it.
"""

from feature_lens.networks.zoo.digits import Digits
from feature_lens.networks.zoo.language_model import LanguageModel
from feature_lens.networks.zoo.linear import Linear
from feature_lens.networks.zoo.mnist import Mnist
from feature_lens.networks.zoo.modular_addition import ModularAddition
from feature_lens.networks.zoo.modular_transformer import ModularTransformer
from feature_lens.networks.zoo.superposition import Superposition
from feature_lens.networks.zoo.zoo_net import ZOO, Training, ZooNet

__all__ = [
    "ZOO",
    "Digits",
    "LanguageModel",
    "Linear",
    "Mnist",
    "ModularAddition",
    "ModularTransformer",
    "Superposition",
    "Training",
    "ZooNet",
]
