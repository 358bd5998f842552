"""Every metric: a line each. Others are added by `METRICS[name] = Metric(...)`, also in a config file (see `metric`)."""

from vae_jax.evaluation import aggregate, ais, bounds, calibration, codes, factor_metrics, frechet, gradients, subspace
from vae_jax.evaluation.metric import METRICS, Column

METRICS.update(
    {
        "bounds": bounds.BOUNDS,
        "active_units": codes.ACTIVE_UNITS,
        "knn_accuracy": codes.KNN,
        "frechet": frechet.FRECHET,
        "scale": bounds.SCALE,
        "importance": bounds.IMPORTANCE,
        "rate_parts": aggregate.RATE_PARTS,
        "ais": ais.AIS,
        "gradients": gradients.GRADIENTS,
        "calibration": calibration.CALIBRATION,
        "subspace_distance": subspace.SUBSPACE,
        "deviations": codes.DEVIATIONS,
        "counterfactuals": factor_metrics.COUNTERFACTUALS,
        "disentanglement": factor_metrics.DISENTANGLEMENT,
        "udr": factor_metrics.UDR,
    }
)


def columns() -> dict[str, Column]:
    """Every column by name, in order."""
    return {column.name: column for metric in METRICS.values() for column in metric.columns}


# Of the printed summary, what comes first; what else has decimals follows in the order of the table.
FIRST = ("distortion", "rate", "elbo", "importance_bound", "train_elbo", "sigma")


def decimals() -> dict[str, int]:
    """The columns of the printed summary, what matters most first, and to how many decimals."""
    # The elbo of the training split stands beside its closed form alone, with which it agrees to more digits.
    known = {"train_elbo": 4} | {name: column.decimals for name, column in columns().items() if column.decimals is not None}
    return {name: known[name] for name in dict.fromkeys([*FIRST, *known]) if name in known}


ERRORS = {
    "draws": "`{0}_se`, over draws",
    "images": "`{0}_image_se`, over images",
    "draws, images": "`{0}_se`, over draws; `{0}_image_se`, over images",
}


def page() -> str:
    """docs/metrics.md: a table for each metric."""
    parts = [PAGE]
    for name, metric in METRICS.items():
        if name in METRICS.origin:
            continue  # of a config file
        needs = f"Needs: {', '.join(metric.needs)}.\n\n" if metric.needs else ""
        density = "Empty for runs without noise, whose codes have no density.\n\n" if metric.density else ""
        head = ["| column | what it is | unit | better | error | source |", "|---|---|---|---|---|---|"]
        parts.append("\n".join([f"## `{name}`", "", needs + density + "\n".join([*head, *map(_line, metric.columns)]), ""]))
    return "\n".join(parts)


def _line(column: Column) -> str:
    splits = f"; also {' and '.join(f'`{split}_{column.name}`' for split in column.splits)}" if column.splits else ""
    error = ERRORS[column.error].format(column.name) if column.error else ""
    source = f"<{column.source}>" if column.source else ""
    doc = column.doc.replace("|", "\\|")
    return f"| `{column.name}` | {doc}{splits} | {column.unit} | {column.better} | {error} | {source} |"


PAGE = """# Metrics

Written by `python -m scripts.document` from the declarations in the code: the columns of `results.csv`. They are of the
test split where nothing is said; `train_` and, with `eval.valid=true`, `valid_` head those of other splits. `X_se` is the
Monte Carlo error of X over draws (what another seed of the evaluation would change), `X_image_se` the standard error over
images (what other images would change). An empty cell: does not apply, or was left out.

`--config.eval.without=(NAME,...)` leaves metrics out by the names of the headings. A metric of your own is a few lines in
a config file: `vae_jax/evaluation/metric.py` shows them.
"""
