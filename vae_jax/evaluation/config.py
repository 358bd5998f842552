"""How much is drawn in evaluation: the config's `eval` group, and the sets of settings that have a name."""

import dataclasses
from collections.abc import Mapping

from vae_jax.core import errors, schema
from vae_jax.data.dataset import SPLITS
from vae_jax.evaluation.metric import METRICS


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """How much is drawn in evaluation; 0 leaves an estimate out."""

    samples: int = schema.field(128, "Draws of z per image, at most.", low=1, high=10**7)
    draws: int = schema.field(
        50_000,
        "Draws of z over a split, at most: the images of a larger one have fewer than `samples`, at least 2; 0: no limit.",
        low=0,
        high=10**12,
        absent=0,
    )
    batch_size: int = schema.field(500, "Images at a time.", low=1, high=10**7)
    images: int = schema.field(
        0,
        "Images of each split that are evaluated, at most, evenly from all of it; 0: all, or 50,000 where data are not in "
        "memory.",
        low=0,
        high=10**12,
        absent=0,
    )
    train: bool = schema.field(
        True, "Evaluate the training split too: columns train_* and what is measured on its codes.", absent=True
    )
    valid: bool = schema.field(False, "Evaluate the validation split too: columns valid_*.", absent=False)
    without: tuple[str, ...] = schema.field((), "Metrics that are left out.", choices=METRICS, absent=())
    betas: tuple[float, ...] = schema.field(
        (),
        "model.conditioning=beta: other betas than objective.beta that have a row of results too; elsewhere not used.",
        low=1e-6,
        high=1e6,
        absent=(),
    )
    decoded: int = schema.field(
        5000, "Decoder means behind each Frechet distance; beyond 1,024 pixels at most 1,024.", low=0, high=10**7
    )
    factor: str = schema.field(
        "", "The factor that pairs of images differ in; empty: the first that takes any value.", absent=""
    )
    importance_samples: int = schema.field(0, "k of the importance bound.", low=0, high=10**7)
    importance_splits: tuple[str, ...] = schema.field(
        ("test",), "Splits whose importance bound is estimated.", choices=SPLITS
    )
    aggregate_samples: int = schema.field(
        1000, "Draws from the aggregate posterior by which the rate is decomposed.", low=0, high=10**7
    )
    ais_temperatures: int = schema.field(
        0, "Steps of annealed importance sampling, and of its bracket on simulated images.", low=0, high=10**6
    )
    ais_chains: int = schema.field(16, "Chains for each image of annealed importance sampling.", low=1, high=10**5)
    ais_images: int = schema.field(100, "The first images of the test split, and as many simulated ones.", low=1, high=10**6)
    gradient_samples: int = schema.field(
        0, "Draws of each gradient estimator (reparameterisation, score function).", low=0, high=10**7
    )
    calibration_samples: int = schema.field(
        32, "Draws per image by which the decoder's intervals are checked, where it has any.", low=0, high=10**7, absent=0
    )

    def draws_of(self, samples: int, images: int) -> int:
        """How many of `samples` draws each of so many images has."""
        return min(samples, max(2, self.draws // images)) if self.draws else samples


QUICK = {
    "eval.samples": 8,
    "eval.draws": 20_000,
    "eval.train": False,
    "eval.decoded": 0,
    "eval.importance_samples": 0,
    "eval.aggregate_samples": 0,
    "eval.ais_temperatures": 0,
    "eval.gradient_samples": 0,
    "eval.calibration_samples": 0,
    "eval.without": ("counterfactuals", "disentanglement"),
}


def overrides(name: str) -> dict[str, schema.Value]:
    """Fields of the config that the set of that name changes.

    Args:
      name: "full" is what the config says; "quick" is for a sweep that is being designed: the bounds and used latents of
        the test split, from few draws; "none" leaves every metric out.

    Raises:
      UserError: no such set.
    """
    sets = {"none": QUICK | {"eval.without": tuple(METRICS)}, "quick": QUICK, "full": {}}
    if name not in sets:
        raise errors.unknown("set of evaluation", name, sets)
    return sets[name]


def changed(name: str, now: Mapping[str, schema.Value], full: Mapping[str, schema.Value]) -> dict[str, schema.Value]:
    """Fields that become other where a study is evaluated anew by the set of that name.

    Args:
      name: of the set; "full" takes back what "quick" or "none" had changed, and leaves every other field.
      now: the fields that the study has, by dotted name.
      full: what they are taken back to.
    """
    if name != "full":
        return overrides(name)
    return {key: full[key] for key in QUICK if any(now[key] == overrides(each)[key] for each in ("none", "quick"))}
