"""Metrics that need known factors: disentanglement of codes, and what lies between codes where images can be rendered."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from vae_jax.core import errors
from vae_jax.data.binarize import to_unit
from vae_jax.data.shapes import Factor
from vae_jax.evaluation import accumulate, disentanglement, known_factors
from vae_jax.evaluation.metric import Column, Metric, Rows, Run, Setting, Values
from vae_jax.evaluation.trained import Trained, own

CODES = 10_000  # that disentanglement is measured on, evenly from all splits


def chosen(setting: Setting) -> int:
    """The column of the factor that pairs differ in: `eval.factor`, or the first that takes any value.

    Raises:
      UserError: no such factor, or one without values in between.
    """
    columns, name = setting.dataset.factors, setting.spec.factor
    continuous = [column.name for column in columns if column.levels != 2 and not column.categorical]
    if name and name not in [column.name for column in columns]:
        raise errors.unknown("factor", name, [column.name for column in columns])
    if (name and name not in continuous) or not continuous:
        raise errors.UserError(
            f"eval.factor={name}: should have values in between, as {', '.join(continuous) or 'none'} has"
        )
    return [column.name for column in columns].index(name or continuous[0])


def _known(setting: Setting) -> known_factors.Known:
    test = setting.dataset.splits["test"]
    assert test.factors is not None and setting.dataset.renderer is not None  # what the metric needs
    images = to_unit(test.pixels[: known_factors.DRAWS], setting.dataset.spec.levels)
    return known_factors.Known(images, test.factors, setting.dataset.renderer, setting.dataset.factors, chosen(setting))


def _program(trained: Trained, inputs, setting: Setting) -> dict:
    known = _known(setting)
    model = known_factors.Model(lambda x: trained.vae.encode(x).mean, lambda z: trained.vae.decode(z, trained.sigma).mean)
    z = trained.vae.prior().sample(trained.key(*own("counterfactuals")), len(known.images))
    return {
        "between": known_factors.between(model, known),
        "draws": known_factors.draws(model, known, z),
        "changes": known_factors.changes(model, known, inputs.mean),
        "traversals": known_factors.traversals(model, known, inputs.mean),
    }


def _mean_and_error(name: str, values: np.ndarray) -> Values:
    error = float(values.std(dtype=float, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None
    return {name: float(values.mean(dtype=float)), f"{name}_image_se": error}


def _finish(state: None, run: Run) -> Values:
    found = run.programs["counterfactuals"]
    values = {
        "midpoint_ratio": found["between"]["ratio"],
        "midpoint_factor_error": found["between"]["error"],
        "prior_to_nearest": found["draws"]["prior"],
        "reconstruction_to_nearest": found["draws"]["reconstruction"],
    }
    for name, change in found["changes"].items():
        effect, leak = ("traversal_span", "traversal_leak") if name == "traversal" else (
            f"attribute_effect_{name}", f"attribute_leak_{name}"
        )  # fmt: skip
        values |= {effect: change["effect"], leak: change["leak"]}
    return {column: cell for name, each in values.items() for column, cell in _mean_and_error(name, each).items()}


def _arrays(state: None, run: Run) -> dict[str, np.ndarray]:
    """What the figures of factors are drawn from."""
    found, setting = run.programs["counterfactuals"], run.setting
    between, draws = found["between"], found["draws"]
    arrays = {
        "factor_names": np.array([column.name for column in setting.dataset.factors]),
        "factor_chosen": np.array(chosen(setting)),
        "factor_line": between["line"],
        "factor_true_line": between["true_line"],
        "factor_average_line": between["average_line"],
        "factor_read": between["read"],
        "factor_drawn": draws["drawn"],
        "factor_drawn_nearest": draws["drawn_nearest"],
        "factor_traversals": found["traversals"],
    }
    for name, change in found["changes"].items():
        arrays |= {f"attribute_{name}_{when}": change[when] for when in ("before", "after")}
    return arrays


COUNTERFACTUALS = Metric(
    columns=(
        Column(
            "midpoint_ratio",
            "pairs of test images equal in all but `eval.factor` (15 % and 85 % of its range): squared error of the decoded "
            "middle of their codes to the true middle image, over that of the average of the two pictures; mean over pairs",
            "", "lower", 2, "", "images",
        ),
        Column(
            "midpoint_factor_error",
            "distance of the factor read from that decoded middle (by the nearest render) to the true one, in units of its "
            "range",
            "", "lower", 3, "", "images",
        ),
        Column(
            "prior_to_nearest",
            "squared error of a pixel between a decoded draw from the prior and the nearest image that can be rendered",
            "", "lower", 4, "", "images",
        ),
        Column("reconstruction_to_nearest", "the same of reconstructions of test images", "", "lower", None, "", "images"),
        Column(
            "traversal_span",
            "how far `eval.factor` goes, in units of its range, when the latent most correlated with it goes from -2 to 2",
            "", "higher", 2, "", "images",
        ),
        Column("traversal_leak", "mean change of the other factors meanwhile", "", "lower", None, "", "images"),
        Column(
            "attribute_effect_<factor>",
            "change of the factor by its attribute vector (mean code with less mean code without); 1 is what was meant",
            "", "", None, "", "images",
        ),
        Column("attribute_leak_<factor>", "mean change of the other factors meanwhile", "", "lower", None, "", "images"),
    ),
    finish=_finish,
    needs=("renderer and a continuous factor",),
    program=_program,
    arrays=_arrays,
)  # fmt: skip


def _add(state: accumulate.Kept, source: str, rows: Rows) -> accumulate.Kept:
    state.add({name: rows[name] for name in ("mean", "factors")})
    return state


def _scores(state: accumulate.Kept, run: Run) -> Values:
    kept = state.arrays()
    stride = -(-len(kept["mean"]) // CODES)
    codes, factors = kept["mean"][::stride], kept["factors"][::stride]
    columns = run.setting.dataset.factors
    factors = disentanglement.check(codes, factors, [column.name for column in columns])
    rates = run.codes["rate_per_latent"].mean(axis=0)
    is_rated = run.is_random and len(rates) == codes.shape[1]
    codes = disentanglement.active(codes, rates if is_rated else None)
    return scores(codes, factors, columns)


def scores(codes: np.ndarray, factors: np.ndarray, columns: tuple[Factor, ...]) -> Values:
    """Every metric of disentanglement, with MIG, SAP and FactorVAE votes per factor where they have such."""
    names = [column.name for column in columns]
    mig = disentanglement.mig(codes, factors)
    dci = disentanglement.dci(codes, factors)
    found: Values = {"mig": float(mig)}
    found |= {f"mig_{name}": float(value) for name, value in zip(names, mig.values, strict=True)}
    found |= {f"dci_{name}": float(getattr(dci, name)) for name in ("disentanglement", "completeness", "informativeness")}
    categorical = [index for index, column in enumerate(columns) if column.categorical]
    sap = disentanglement.sap(codes, factors, categorical)
    found |= {"sap": float(sap)}
    found |= {f"sap_{name}": float(value) for name, value in zip(names, sap.values, strict=True)}
    return found | {
        "modularity": float(disentanglement.modularity(codes, factors)),
        "beta_vae_score": float(disentanglement.beta_vae_score(codes, factors)),
        "factor_vae_score": float(disentanglement.factor_vae_score(codes, factors)),
    }


CHEN, EASTWOOD = "https://arxiv.org/abs/1802.04942", "https://openreview.net/forum?id=By-7dz-AZ"
KUMAR, RIDGEWAY = "https://arxiv.org/abs/1711.00848", "https://arxiv.org/abs/1802.05312"
HIGGINS, KIM = "https://openreview.net/forum?id=Sy2fzU9gl", "https://arxiv.org/abs/1802.05983"
DISENTANGLEMENT = Metric(
    columns=(
        Column(
            "mig",
            "mutual information gap, mean over factors; mean codes in 20 bins of equal counts; latents of less than 0.01 "
            "nats (without noise: of a std below 0.05) are left out before every metric, so that a collapsed model has 0",
            "", "higher", 3, CHEN,
        ),
        Column("mig_<factor>", "the gap of one factor", "", "higher", None, CHEN),
        Column("dci_disentanglement", "1 - entropy over factors of a latent's importance", "", "higher", 3, EASTWOOD),
        Column("dci_completeness", "1 - entropy over latents of what a factor needs", "", "higher", None, EASTWOOD),
        Column("dci_informativeness", "accuracy of the trees on held-out codes", "", "higher", None, EASTWOOD),
        Column("sap", "separated attribute predictability: best latent less second best", "", "higher", 3, KUMAR),
        Column("sap_<factor>", "that of one factor", "", "higher", None, KUMAR),
        Column("modularity", "1 - what a latent says of other factors; noise has about 0.5", "", "higher", None, RIDGEWAY),
        Column("beta_vae_score", "accuracy of telling the factor that pairs share", "", "higher", None, HIGGINS),
        Column("factor_vae_score", "accuracy of the vote by the latent of least variance", "", "higher", None, KIM),
    ),
    finish=_scores,
    needs=("whole factors",),
    asked=lambda spec: spec.train,
    splits=lambda spec: ("train", "test"),
    init=lambda reference, setting: accumulate.Kept(),
    update=_add,
)  # fmt: skip


def _udr(rows: Sequence[Mapping], arrays: Sequence[Mapping[str, np.ndarray]]) -> list[Values]:
    """Of the seeds of one setting, from the codes of the test split."""
    codes = []
    for row, found in zip(rows, arrays, strict=True):
        mean, rates = found["codes_mean"], found["rate_per_latent"]
        is_rated = np.isfinite(float(row.get("rate", "inf"))) and len(rates) == mean.shape[1]
        codes.append(disentanglement.active(mean, rates if is_rated else None))
    return [{"udr": float(value)} for value in disentanglement.udr(codes).values]


UDR = Metric(
    columns=(
        Column(
            "udr",
            "unsupervised disentanglement ranking: how alike the latents of the seeds of one setting are, by rank "
            "correlations on test codes; median over the other seeds, empty for a single one",
            "", "higher", None, "https://arxiv.org/abs/1905.12614",
        ),
    ),
    needs=("whole factors",),
    across=_udr,
)  # fmt: skip
