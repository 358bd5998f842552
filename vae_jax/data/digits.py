"""The 1,797 handwritten digits of 8x8 pixels that scikit-learn brings along."""

import importlib.util
import pathlib

import numpy as np

from vae_jax.core import errors
from vae_jax.data.source import DataConfig, Loaded, Split


def load(config: DataConfig) -> Loaded:
    """All of them, in 17 grey levels; there is no test split of their own."""
    # The file that its load_digits() reads: importing scikit-learn takes longer than training on it.
    spec = importlib.util.find_spec("sklearn")
    if spec is None or spec.origin is None:
        raise errors.UserError("data.name=digits needs scikit-learn: pip install scikit-learn")
    rows = np.loadtxt(pathlib.Path(spec.origin).parent / "datasets/data/digits.csv.gz", np.uint8, delimiter=",")
    return Loaded(Split(rows[:, :-1].reshape(-1, 8, 8, 1), rows[:, -1].astype(int)), levels=16)
