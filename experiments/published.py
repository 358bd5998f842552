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
    "burda_muon": [("burda_muon", "importance_bound", -1, "86.76, Burda et al. 2016 (3280 epochs of Adam)")],
    "burda_muon_iwae": [("burda_muon_iwae", "importance_bound", -1, "85.54, Burda et al. 2016 (3280 epochs of Adam)")],
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


def compare(name: str, workdir: pathlib.Path, data_dir: str) -> list[str]:
    """Run the study configs/NAME.py in `workdir`, draw it, and set its rows beside what was published: a line for each."""
    from vae_jax.figures import draw as figures
    from vae_jax.study import study

    module = importlib.import_module(f"configs.{name}")
    config = module.get_config()
    config.data.dir = data_dir
    rows = study.run(config, workdir, getattr(module, "sweep", None))
    figures.draw(workdir)
    lines = []
    for row_name, column, sign, theirs in PUBLISHED[name]:
        found = [row for row in rows if row["name"] == row_name]
        for row in found:
            told = " ".join([row_name, *(f"{row[key]} latents" for key in ["model.latents"] if key in row)])
            told += f" seed {row['seed']}" if len({row.get("seed") for row in found}) > 1 else ""
            label = "negative " + column if sign < 0 else column
            lines.append(f"{name:17s} {told:20s} {label:26s} ours {sign * row[column]:9.4f}   published: {theirs}")
    return lines


def main() -> None:
    for name in [_ONLY.value] if _ONLY.value else PUBLISHED:
        print("\n".join(compare(name, pathlib.Path(_WORKDIR.value) / name, _DATA_DIR.value)))


if __name__ == "__main__":
    command_line.run(main)
