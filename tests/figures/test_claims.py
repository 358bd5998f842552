"""The post, claim by claim: each verdict follows from the numbers, and turns when they do."""

import math
import pathlib

import numpy as np
import pytest

from vae_jax.core import errors
from vae_jax.figures import claims, draw, post
from vae_jax.figures.report import content
from vae_jax.storage import run_directory, tables

SPREAD = (-0.01, 0.0, 0.01)  # of three seeds, relative
OBJECTIVES = {
    "ae": (0, 1, 0),
    "vae_no_kl": (1, 1, 0),
    "kl_only": (1, 0, 1),
    "vae": (1, 1, 1),
    "half": (1, 1, 0.5),
    "two": (1, 1, 2),
}
# What each study would measure if all of the post held, by study and setting.
ABLATIONS = {
    "ae": {
        "mse": 0.030,
        "mean_std": 0.0,
        "rate": math.inf,
        "distortion": 22.0,
        "train_distortion": 18.0,
        "knn_accuracy": 0.8,
    },
    "vae_no_kl": {
        "mse": 0.030,
        "mean_std": 0.001,
        "rate": 30.0,
        "distortion": 22.0,
        "train_distortion": 18.0,
        "knn_accuracy": 0.8,
    },
    "kl_only": {
        "mse": 0.07,
        "mean_std": 1.0,
        "rate": 0.001,
        "distortion": 27.0,
        "train_distortion": 27.0,
        "knn_accuracy": 0.1,
    },
    "vae": {"mse": 0.032, "mean_std": 0.25, "rate": 3.0, "distortion": 21.0, "train_distortion": 20.0, "knn_accuracy": 0.85},
    "half": {
        "mse": 0.031,
        "mean_std": 0.15,
        "rate": 4.0,
        "distortion": 20.5,
        "train_distortion": 19.0,
        "knn_accuracy": 0.85,
    },
    "two": {"mse": 0.04, "mean_std": 0.5, "rate": 1.3, "distortion": 23.7, "train_distortion": 22.9, "knn_accuracy": 0.7},
}
FRECHET = {"frechet_prior": {"ae": 1.7, "vae": 1.1}, "frechet_midpoint": {"ae": 2.0, "vae": 1.5}}
FACES = {
    "ae": {
        "midpoint_ratio": 1.2,
        "midpoint_factor_error": 0.14,
        "prior_to_nearest": 0.012,
        "reconstruction_to_nearest": 0.0004,
    },
    "vae": {
        "midpoint_ratio": 0.6,
        "midpoint_factor_error": 0.12,
        "prior_to_nearest": 0.004,
        "reconstruction_to_nearest": 0.0008,
    },
}
FEATURES = {"attribute_effect": 0.9, "attribute_leak": 0.03}


def table(settings: dict[str, dict], columns: dict[str, dict]) -> list[dict]:
    """A row for each setting and seed; the seeds differ by a hundredth of each value."""
    rows: list[dict] = []
    for name, fields in settings.items():
        for seed, spread in enumerate(SPREAD):
            metrics = {column: value * (1 + spread) for column, value in columns[name].items()}
            rows.append({"run": len(rows), "name": name, "seed": seed} | fields | metrics)
    return rows


def objective(name: str) -> dict:
    noise_scale, distortion_weight, beta = OBJECTIVES[name]
    return {
        "objective.noise_scale": noise_scale, "objective.distortion_weight": distortion_weight, "objective.beta": beta,
    }  # fmt: skip


def studies() -> dict[str, list[dict]]:
    """Rows by study, named by nothing that the claims know."""
    ablations = {
        name: ABLATIONS[name] | {key: each[name] for key, each in FRECHET.items() if name in each} for name in ABLATIONS
    }
    faces = {
        name: FACES[name] | {f"{kind}_{which}": v for kind, v in FEATURES.items() for which in ("hair", "smile", "glasses")}
        for name in FACES
    }
    latents = {
        f"{net} {count}": {"mse": mse}
        for count, mse in ((1, 0.06), (2, 0.05))
        for net, mse in (("linear", mse), ("mlp", 0.7 * mse))
    }
    settings = {key: {"model.encoder": key.split()[0], "model.latents": int(key.split()[1])} for key in latents}
    rows = table(settings, latents)
    rows += [{"run": len(rows) + n, "name": "pca", "model.latents": n + 1, "mse": mse} for n, mse in enumerate((0.06, 0.05))]
    decoders = {sigma: {"coverage_3sigma": 0.9973} for sigma in ("learned", "per_pixel")}
    priors = {
        "normal": {"importance_bound": -80.0, "gradient_variance_reparameterized": 3.0, "gradient_variance_score": 300.0}
    }
    priors |= {"flow": {"importance_bound": -79.9}}
    others = table({name: {"model.likelihood": "gaussian", "model.sigma": name} for name in decoders}, decoders)
    fields = {name: {"model.likelihood": "bernoulli", "model.prior": name} for name in priors}
    for row in others:
        row["coverage_3sigma"] = 0.9973
    for row in table(fields, priors):
        others.append(row | {"run": len(others)})
    return {
        "ablations": table({name: objective(name) for name in ablations}, ablations),
        "faces": table({name: objective(name) for name in faces}, faces),
        "latents": rows,
        "post": others,
    }


def write(folder, found: dict[str, list[dict]]) -> None:
    for name, rows in found.items():
        (folder / name).mkdir()
        tables.write_csv(folder / name / "results.csv", rows)
        run_directory.write_json(folder / name / "config.json", {"format": 1, "config": {}, "versions": {}})


def verdicts(folder) -> dict[str, str]:
    return {one.name: one.verdict[0] for one in claims.judge(folder, post.CLAIMS)}


def test_every_claim_holds_where_the_numbers_say_so(tmp_path):
    write(tmp_path, studies())
    assert verdicts(tmp_path) == dict.fromkeys(post.CLAIMS, "holds")


def test_every_claim_shows_a_figure_that_there_is():
    assert {pathlib.Path(claim.figure).stem for claim in post.CLAIMS.values()} <= set(draw.FIGURES)


def worse(rows: list[dict], column: str, factor: float, **fields) -> None:
    """Multiply a column in the rows with these fields."""
    changed = [
        row
        for row in rows
        if all(row.get(key.replace("__", ".")) == value for key, value in fields.items()) and column in row
    ]
    assert changed
    for row in changed:
        row[column] = row[column] * factor


# claim -> the study, and a change of one of its numbers by which the claim no longer holds.
TURNS = {
    "linear": ("latents", "mse", 1.1, {"model__encoder": "linear"}),
    "nonlinear": ("latents", "mse", 1.6, {"model__encoder": "mlp"}),
    "lossy": ("ablations", "mse", 0.0, post.AE),
    "features": ("faces", "attribute_effect_smile", 0.1, post.AE),
    "unknown": ("faces", "prior_to_nearest", 0.1, post.AE),
    "between": ("faces", "midpoint_ratio", 0.7, post.AE),
    "gaps": ("ablations", "frechet_prior", 0.5, post.AE),
    "generates": ("faces", "prior_to_nearest", 2.0, post.VAE),
    "reparameterisation": ("post", "gradient_variance_score", 0.001, {}),
    "lazy": ("ablations", "mean_std", 100.0, post.NO_KL),
    "panels": ("ablations", "rate", 100.0, post.KL_ONLY),
    "trade_off": ("ablations", "rate", 4.0, {"objective__beta": 2}),
    "noise": ("ablations", "train_distortion", 0.7, post.VAE),
    "interval": ("post", "coverage_3sigma", 0.5, {}),
    "prior": ("post", "importance_bound", 1.1, {"model__prior": "flow"}),
}


def test_every_claim_can_turn():
    assert TURNS.keys() == post.CLAIMS.keys()


@pytest.mark.parametrize("name", TURNS)
def test_a_verdict_turns_with_its_numbers(name, tmp_path):
    study, column, factor, fields = TURNS[name]
    found = studies()
    worse(found[study], column, factor, **fields)
    write(tmp_path, found)
    assert verdicts(tmp_path)[name] != "holds"


@pytest.mark.parametrize(
    ("name", "study", "column", "factor", "fields", "said"),
    [
        ("gaps", "ablations", "frechet_midpoint", 0.4, post.AE, "holds where one draws from N(0, I)"),
        (
            "nonlinear",
            "latents",
            "mse",
            1.6,
            {"model__encoder": "mlp", "model__latents": 2},
            "holds where there are 1 latents",
        ),
        ("features", "faces", "attribute_leak_hair", 9.0, post.AE, "holds where the feature is smile or glasses"),
        ("interval", "post", "coverage_3sigma", 0.98, {}, "holds where a few per cent are no matter"),
    ],
)
def test_a_claim_that_holds_under_a_condition(name, study, column, factor, fields, said, tmp_path):
    found = studies()
    worse(found[study], column, factor, **fields)
    write(tmp_path, found)
    assert verdicts(tmp_path)[name].startswith(said)


def test_a_study_that_is_not_there_decides_nothing(tmp_path):
    found = studies()
    del found["faces"]
    write(tmp_path, found)
    judged = {one.name: one for one in claims.judge(tmp_path, post.CLAIMS)}
    assert judged["between"].verdict == claims.UNMEASURED
    assert judged["between"].numbers[0] == "needs the study faces"
    assert judged["lazy"].verdict == claims.HOLDS


def test_one_seed_decides_nothing(tmp_path):
    write(tmp_path, {name: [row for row in rows if row.get("seed", 0) == 0] for name, rows in studies().items()})
    assert verdicts(tmp_path)["between"] == "does not hold as written"


def test_diverged_runs_are_left_out(tmp_path):
    found = studies()
    wrong = dict(found["faces"][0], run=99, midpoint_ratio=0.01, diverged=3)
    write(tmp_path, found | {"faces": [*found["faces"], wrong]})
    assert verdicts(tmp_path)["between"] == "holds"


def test_pages_in_two_languages(tmp_path):
    write(tmp_path, studies())
    judged = claims.judge(tmp_path, post.CLAIMS)
    english, chinese = (claims.page(judged, language) for language in (0, 1))
    assert english.count("\n## ") == chinese.count("\n## ") == len(post.CLAIMS)
    assert "**Verdict: holds**" in english and "**结论：成立**" in chinese
    assert "1.20 ± 0.01" in english and "1.20 ± 0.01" in chinese
    assert "It is sigma" in english


def test_the_page_of_a_study_has_the_claims_that_it_shows(tmp_path):
    found = studies()
    del found["post"]
    write(tmp_path, found)
    judged = claims.judge(tmp_path, post.CLAIMS)
    assert claims.write(tmp_path, judged) == [tmp_path / name for name in ("latents", "ablations", "faces")]
    shown = content.claims(tmp_path / "faces")
    between = next(one for one in judged if one.name == "between")
    expected = {"statement": between.claim.says[0], "verdict": "holds", "numbers": between.numbers[0]}
    assert expected in shown and expected not in content.claims(tmp_path / "latents")
    assert "claims.json" in run_directory.recorded(tmp_path / "faces")
    assert not (tmp_path / "post").exists()


def test_no_directory_and_no_study(tmp_path):
    with pytest.raises(errors.UserError, match="no such directory"):
        claims.judge(tmp_path / "none", post.CLAIMS)
    with pytest.raises(errors.UserError, match="holds none of the studies"):
        claims.judge(tmp_path, post.CLAIMS)


def test_a_difference_counts_above_two_standard_errors():
    assert claims.below(claims.Value(1.0, 0.1), claims.Value(1.3, 0.1))
    assert not claims.below(claims.Value(1.0, 0.1), claims.Value(1.2, 0.1))
    assert not claims.below(claims.Value(1.0, np.nan), claims.Value(9.0, 0.1))
    assert claims.below(claims.Value(1.0, 0.1), claims.Value(math.inf, np.nan))
