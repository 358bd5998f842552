"""How far a linear decoder's columns are from the principal directions of the data, and their variances."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from vae_jax.evaluation import accumulate, baselines, closed_form
from vae_jax.evaluation.codes import ACTIVE
from vae_jax.evaluation.metric import Column, Metric, Rows, Run, Setting, Values


class _Principal(NamedTuple):
    spectrum: Float[np.ndarray, " pixels"]  # variances of the training split along its principal axes
    directions: Float[np.ndarray, "directions pixels"]  # the first of these


class _State(NamedTuple):
    principal: _Principal
    codes: accumulate.Means
    axes: accumulate.Kept  # decoded unit vectors, and the origin


def _reference(setting: Setting) -> _Principal:
    spectrum, axes = closed_form.spectrum(baselines.training_moments(setting.dataset))
    return _Principal(spectrum, axes[:, : setting.model.latents].T)


def _init(reference: _Principal, setting: Setting) -> _State:
    return _State(reference, accumulate.Means(), accumulate.Kept())


def _update(state: _State, source: str, rows: Rows) -> _State:
    if source == "axes":
        state.axes.add({"axes": rows["images"]})
    else:
        state.codes.add({"mean": rows["mean"]})
    return state


def _finish(state: _State, run: Run) -> Values:
    axes = state.axes.arrays()["axes"]
    columns = (axes[:-1] - axes[-1]).reshape(len(axes) - 1, -1).astype(float)
    is_used = state.codes.variance("mean") > ACTIVE
    return {"subspace_distance": subspace_distance(columns[is_used], state.principal.directions)}


def subspace_distance(
    columns: Float[np.ndarray, "used pixels"], principal: Float[np.ndarray, "directions pixels"]
) -> float | None:
    """Spectral distance between the projectors on the span of `columns` and on as many principal directions.

    The sine of the largest principal angle; None without columns.
    """
    if not np.isfinite(columns).all():
        return math.nan
    if not len(columns):
        return None
    basis = np.linalg.qr(columns.T)[0]
    cosine = np.linalg.svd(principal[: len(columns)] @ basis)[1].min()
    return float(np.sqrt(np.clip(1 - cosine**2, 0, None)))


SUBSPACE = Metric(
    columns=(
        Column(
            "subspace_distance",
            "sine of the largest angle between a linear decoder's used columns and as many principal directions",
            "", "lower", None, "https://doi.org/10.1016/0893-6080(89)90014-2",
        ),
    ),
    finish=_finish,
    needs=("linear decoder",),
    asked=lambda spec: spec.train,
    splits=lambda spec: ("train", "axes"),
    reference=_reference,
    init=_init,
    update=_update,
    arrays=lambda state, run: {"spectrum": state.principal.spectrum},
)  # fmt: skip
