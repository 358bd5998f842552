"""Run the studies that have published numbers, on real MNIST, and print ours beside theirs.

    python -m experiments.published --workdir=runs/published
    python -m experiments.published --workdir=runs/published --only=pytorch_examples --data_dir=DIR

Each is an ordinary study, configs/NAME.py, in WORKDIR/NAME; what is done there already is only read.
"""

import importlib
import pathlib

from absl import flags

from experiments import command_line

# study -> (row, column, sign, what was published)
PUBLISHED = {
    "pytorch_examples": [("pytorch_examples", "elbo", -1, "105.6 +- 0.5, pytorch/examples")],
    "flax_example": [("flax_example", "elbo", -1, "about 104, flax examples/vae")],
    "mnist_latents": [("pca", "mse", 1, "0.0557 and 0.0235, exact"), ("ae", "mse", 1, "below PCA"), ("vae", "mse", 1, "-")],
    "burda": [("burda", "importance_bound", -1, "86.76, Burda et al. 2016 (3280 epochs)")],
    "burda_iwae": [
        ("vae", "importance_bound", -1, "86.76 (3280 epochs)"),
        ("iwae_5", "importance_bound", -1, "85.54 (3280 epochs)"),
        ("iwae_50", "importance_bound", -1, "84.78 (3280 epochs)"),
    ],
    "mnist_priors": [
        ("normal", "importance_bound", -1, "84.45 (up to 2000 epochs)"),
        ("vamp", "importance_bound", -1, "82.43 (up to 2000 epochs)"),
        ("flow", "importance_bound", -1, "-"),
    ],
}

_WORKDIR = flags.DEFINE_string("workdir", None, "Directory that will hold a directory per study.", required=True)
_ONLY = flags.DEFINE_enum("only", None, list(PUBLISHED), "One study of them.")
_DATA_DIR = flags.DEFINE_string("data_dir", "", "Where TFDS keeps its prepared sets (default: $TFDS_DATA_DIR).")


def main() -> None:
    from vae_jax import figures, study

    for name in [_ONLY.value] if _ONLY.value else PUBLISHED:
        module = importlib.import_module(f"configs.{name}")
        config = module.get_config()
        config.data.dir = _DATA_DIR.value
        workdir = pathlib.Path(_WORKDIR.value) / name
        rows = study.run(config, workdir, getattr(module, "sweep", None))
        figures.draw(workdir)
        for row_name, column, sign, theirs in PUBLISHED[name]:
            for row in (row for row in rows if row["name"] == row_name):
                latents = f" {row['model.latents']} latents" if "model.latents" in row else ""
                label = "negative " + column if sign < 0 else column
                print(
                    f"{name:18s} {row_name + latents:20s} {label:26s} ours {sign * row[column]:9.4f}   published: {theirs}"
                )


if __name__ == "__main__":
    command_line.run(main)
