"""The default config: every field there is, which each config file starts from.

    python -m experiments.train --config=configs/base.py

The fields are declared in `vae_jax`, each beside the code that uses it; `study.config` composes them.
"""

from vae_jax.study.config import default_config as get_config

__all__ = ["get_config"]
