"""Autoencoders, VAEs and beta-VAEs in JAX: one objective, many runs, one program.

    import vae_jax

    config = vae_jax.default_config()
    config.objective.beta = 4.0
    rows = vae_jax.run(config, "runs/beta")     # trains, evaluates, returns the rows of results.csv
    vae_jax.draw("runs/beta")                   # runs/beta/figures/*.png
    vae_jax.report("runs/beta")                 # runs/beta/report.html: tables, plots, and the models to play with
    vae_jax.frame("runs/beta")                  # the same rows as a pandas frame; `curves` has the metrics of training
    model = vae_jax.load("runs/beta", seed=0)   # encode, decode, sample, elbo: NumPy in and out

A name is imported when it is first used: `import vae_jax` itself is fast, and drawing needs no JAX.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vae_jax.api.frames import curves, frame
    from vae_jax.api.pages import report
    from vae_jax.api.trained import load
    from vae_jax.figures.draw import draw
    from vae_jax.study.config import default_config
    from vae_jax.study.study import evaluate, run

__version__ = "0.1.0"
__all__ = ["curves", "default_config", "draw", "evaluate", "frame", "load", "report", "run"]

# Where each name is defined.
_MODULES = {
    "curves": "vae_jax.api.frames",
    "default_config": "vae_jax.study.config",
    "draw": "vae_jax.figures.draw",
    "evaluate": "vae_jax.study.study",
    "frame": "vae_jax.api.frames",
    "load": "vae_jax.api.trained",
    "report": "vae_jax.api.pages",
    "run": "vae_jax.study.study",
}


def __getattr__(name: str) -> Any:
    """Import a public name from where it is defined.

    Raises:
      AttributeError: no public name.
      ImportError: a package that it needs is not installed.
    """
    if name not in _MODULES:
        raise AttributeError(f"module 'vae_jax' has no attribute {name!r}; it has {', '.join(__all__)}")
    try:
        value = getattr(importlib.import_module(_MODULES[name]), name)  # noqa: TID251 (a name of the table above)
    except ImportError as error:
        raise ImportError(f"vae_jax.{name} could not be imported: {error}", name=error.name, path=error.path) from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
