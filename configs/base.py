"""Every field there is, at its default: what each config file starts from.

The fields are declared in `vae_jax`, each beside the code that uses it; docs/config.md lists them all.
"""

from vae_jax.study.config import default_config as get_config

__all__ = ["get_config"]
