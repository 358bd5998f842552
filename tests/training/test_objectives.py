"""The loss and its terms: by hand, by their gradients, and by what does not depend on the batch."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from jax import random
from support import small_model

from vae_jax.models import priors
from vae_jax.models.vae import VAE, Posterior, reparameterize
from vae_jax.training import discrepancies, objectives, schedules

# What keeps numbers finite and exact has to hold after all of XLA's rewriting.
pytestmark = pytest.mark.compiled_fully

EPS = np.finfo(np.float32).eps
RANDOM = np.random.default_rng(0)
SPEC = small_model()
SIGMA = 0.5
WEIGHTS = {  # noise_scale, distortion_weight, beta
    "ae": (0.0, 1.0, 0.0),
    "vae_no_kl": (1.0, 1.0, 0.0),
    "kl_only": (1.0, 0.0, 1.0),
    "vae": (1.0, 1.0, 1.0),
    "beta_vae": (1.0, 1.0, 4.0),
}


def normals(*shape: int) -> jax.Array:
    return jnp.asarray(RANDOM.normal(size=shape), jnp.float32)


@pytest.fixture(scope="module")
def variables() -> dict:
    shapes = jax.eval_shape(VAE(SPEC).init, random.key(0), jnp.zeros((1, *SPEC.shape)))
    return jax.tree.map(lambda leaf: normals(*leaf.shape), shapes)


@pytest.fixture(scope="module")
def x() -> jax.Array:
    return normals(5, *SPEC.shape)


# Compiled as a whole: operation by operation would take longer.
total_correlation = jax.jit(discrepancies.total_correlation, static_argnums=2)
maximum_mean_discrepancy = jax.jit(discrepancies.maximum_mean_discrepancy)


def by_hand() -> objectives.Terms:
    """Two images of distortion 3 and 5 and rate 1 + 2 and 3 + 4."""
    posterior, rate = Posterior(jnp.zeros((2, 2)), jnp.zeros((2, 2))), jnp.array([[1.0, 2.0], [3.0, 4.0]])
    return objectives.Terms(jnp.array([3.0, 5.0]), rate, jnp.sum(rate, axis=1), posterior, jnp.zeros((2, 2)))


def loss_of(
    terms: objectives.Terms, weights: objectives.Weights, kind: str = "weighted", train_size: int = 100
) -> jax.Array:
    """The loss of a batch, as if in the first step."""
    objective = objectives.OBJECTIVES[kind]
    context = objectives.Context(priors.Normal(2), random.key(9), train_size, objective.carried)
    return objective.loss(terms, weights, context)[0]


loss = jax.jit(loss_of, static_argnames=("kind", "train_size"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [("ae", 4.0), ("vae_no_kl", 4.0), ("kl_only", 5.0), ("vae", 9.0), ("beta_vae", 24.0)],
)
def test_loss_by_hand(name, expected):
    assert loss(by_hand(), objectives.Weights(*WEIGHTS[name])) == expected


def test_rate_is_summed_over_latents():
    np.testing.assert_array_equal(by_hand().rate, [3, 7])


@pytest.mark.parametrize("name", WEIGHTS)
def test_weight_of_each_term(name):
    _, distortion_weight, beta = WEIGHTS[name]
    gradient = jax.grad(loss)(by_hand(), objectives.Weights(*WEIGHTS[name]))
    # The mean over two images; a beta of 0 lets nothing of the rate through.
    np.testing.assert_array_equal(gradient.distortion, [distortion_weight / 2] * 2)
    np.testing.assert_array_equal(gradient.rate_per_latent, [[beta / 2] * 2] * 2)


@jax.jit
def terms_of(variables, x, key, noise_scale) -> objectives.Terms:
    return objectives.terms(VAE(SPEC).bind(variables), x, key, noise_scale, SIGMA)


@jax.jit
def decoded(variables, z) -> jax.Array:
    return VAE(SPEC).bind(variables).decode(z, SIGMA).mean


@pytest.mark.parametrize("noise_scale", [0.0, 1.0])
def test_terms_against_scipy(variables, x, noise_scale):
    key = random.key(1)
    terms = terms_of(variables, x, key, noise_scale)
    mean, log_var = np.asarray(terms.posterior.mean, float), np.asarray(terms.posterior.log_var, float)
    z = mean + noise_scale * np.exp(0.5 * log_var) * np.asarray(random.normal(key, (5, 2)), float)
    shown = np.asarray(decoded(variables, jnp.asarray(z, jnp.float32)), float)
    per_pixel = scipy.stats.norm.logpdf(np.asarray(x, float), shown, SIGMA)
    # z is rounded to eps of itself, which the decoder and 1 / sigma^2 make some 100 eps of a distortion of size 100.
    np.testing.assert_allclose(terms.distortion, -per_pixel.sum(axis=(1, 2, 3)), rtol=200 * EPS)
    # The rate is the finite one of (mean, log_var) whatever the noise.
    np.testing.assert_allclose(terms.rate_per_latent, 0.5 * (mean**2 + np.expm1(log_var) - log_var), rtol=20 * EPS)


@jax.jit
def gradient_of(variables, x, weights: objectives.Weights) -> dict:
    def total(variables):
        return loss(terms_of(variables, x, random.key(1), weights.noise_scale), weights)

    return jax.grad(total)(variables)["params"]


def test_gradient_is_the_weighted_sum_of_two(variables, x):
    of_distortion, of_rate, both = (
        gradient_of(variables, x, objectives.Weights(0.7, *weights)) for weights in ((1.0, 0.0), (0.0, 1.0), (0.3, 4.0))
    )
    for a, b, c in zip(*map(jax.tree.leaves, (of_distortion, of_rate, both)), strict=True):
        a, b = np.asarray(a, float), np.asarray(b, float)
        # Sums of 10 to 30 terms that partly cancel, in another order: relative to the largest entry.
        np.testing.assert_allclose(c, 0.3 * a + 4 * b, atol=30 * EPS * np.max(0.3 * np.abs(a) + 4 * np.abs(b)))
    # Only the encoder has a rate.
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(of_rate["decoder"]))
    assert all(np.any(leaf) for leaf in jax.tree.leaves(of_rate["encoder"]))


def test_an_autoencoder_does_not_learn_log_var(variables, x):
    head = np.asarray(gradient_of(variables, x, objectives.Weights(*WEIGHTS["ae"]))["encoder"]["Dense_1"]["kernel"])
    assert np.all(head[:, SPEC.latents :] == 0)
    assert np.any(head[:, : SPEC.latents] != 0)


def test_loss_is_a_mean_over_images(variables, x):
    weights, key = objectives.Weights(0.0, 1.0, 2.0), random.key(0)
    alone = loss(terms_of(variables, x[:1], key, 0.0), weights)
    copies = loss(terms_of(variables, jnp.tile(x[:1], (5, 1, 1, 1)), key, 0.0), weights)
    np.testing.assert_allclose(copies, alone, rtol=8 * EPS)
    terms = terms_of(variables, x, key, 0.0)
    expected = np.mean(np.asarray(terms.distortion, float) + 2 * np.asarray(terms.rate, float))
    np.testing.assert_allclose(loss(terms, weights), expected, rtol=8 * EPS)


def test_each_image_has_its_own_noise(variables, x):
    terms = terms_of(variables, jnp.tile(x[:1], (5, 1, 1, 1)), random.key(0), 1.0)
    assert len(np.unique(terms.distortion)) == 5
    assert len(np.unique(terms.rate)) == 1


def test_importance_bound_against_scipy():
    log_weights = np.asarray(normals(7, 5)) * 3 - 1000  # far below where exp(log_weights) is 0
    expected = scipy.special.logsumexp(np.asarray(log_weights, float), axis=0) - np.log(7)
    bound = jax.jit(objectives.importance_bound)
    found = np.asarray(bound(log_weights))
    np.testing.assert_allclose(found, expected, rtol=4 * EPS)
    np.testing.assert_array_equal(bound(log_weights[:1]), log_weights[0])
    # Jensen: never below the mean of the log weights, which is the ELBO.
    assert np.all(found > log_weights.mean(axis=0))


def test_terms_of_several_draws(variables, x):
    count, key = 2000, random.key(2)

    @jax.jit
    def both(variables):
        """The terms, and the parts of the same draws: log p(x | z), and log q(z | x) - log p(z)."""
        vae = VAE(SPEC).bind(variables)
        many = jax.tree.map(lambda leaf: jnp.tile(leaf, (count, 1)), vae.encode(x))
        z = reparameterize(key, many)
        log_likelihood = vae.decode(z, SIGMA).log_prob(jnp.tile(x, (count, 1, 1, 1)))
        return objectives.terms(vae, x, key, 1.0, SIGMA, count), log_likelihood, many.log_prob(z) - vae.prior().log_prob(z)

    terms, *parts = both(variables)
    log_likelihood, log_ratio = (np.asarray(part, float).reshape(count, 5) for part in parts)
    assert terms.log_weights.shape == (count, 5)
    # Each weight is p(x, z) / q(z | x). A sum of three numbers of up to this size, rounded a few times.
    np.testing.assert_allclose(terms.log_weights, log_likelihood - log_ratio, atol=8 * EPS * np.abs(log_likelihood).max())
    np.testing.assert_allclose(terms.distortion, -log_likelihood.mean(axis=0), rtol=20 * EPS)
    error = log_ratio.std(axis=0) / np.sqrt(count)
    assert np.all(np.abs(log_ratio.mean(axis=0) - terms.rate) < 5 * error)
    expected = -np.mean(scipy.special.logsumexp(np.asarray(terms.log_weights, float), axis=0) - np.log(count))
    np.testing.assert_allclose(loss(terms, objectives.Weights(), "importance"), expected, rtol=8 * EPS)


@pytest.mark.parametrize("noise_scale", [0.0, 0.5, 1.0])
def test_the_reported_rate_is_that_of_what_is_drawn(variables, x, noise_scale):
    """KL of N(mean, (s std)^2), infinite for a deterministic code; that of the loss is of s = 1."""
    terms = terms_of(variables, x, random.key(1), noise_scale)
    mean, variance = np.asarray(terms.posterior.mean, float), np.exp(np.asarray(terms.posterior.log_var, float))
    with np.errstate(divide="ignore"):
        scaled = noise_scale**2 * variance
        expected = 0.5 * np.sum(mean**2 + scaled - 1 - np.log(scaled), axis=1)
    np.testing.assert_allclose(terms.reported_rate, expected, rtol=20 * EPS)
    np.testing.assert_allclose(terms.rate, 0.5 * np.sum(mean**2 + variance - 1 - np.log(variance), axis=1), rtol=20 * EPS)


def test_a_rate_without_closed_form_is_reported_as_it_is():
    student, rate = priors.StudentT(3), jnp.array([[1.0], [2.0]])
    posterior = Posterior(jnp.zeros((2, 3)), jnp.zeros((2, 3)))
    assert objectives.reported_rate(student, posterior, rate, 1.0).tolist() == [1, 2]
    assert objectives.reported_rate(student, posterior, rate, 0.0).tolist() == [np.inf, np.inf]


# Other ways to choose the balance.


def test_capacity_by_hand():
    # Rates 3 and 7, mean 5; distortions 3 and 5, mean 4.
    for target, gap in [(2.0, 3.0), (5.0, 0.0), (9.0, 4.0)]:
        weights = objectives.Weights(1.0, 1.0, capacity=target, capacity_weight=10.0)
        assert loss(by_hand(), weights, "capacity") == 4 + 10 * gap


def test_free_bits_by_hand():
    # Mean rates of the two latents 2 and 3: the first is under 2.5 nats and costs 2.5, whatever it is.
    weights = objectives.Weights(1.0, 1.0, 2.0, free_bits=2.5)
    assert loss(by_hand(), weights, "free_bits") == 4 + 2 * (2.5 + 3)
    gradient = jax.grad(loss)(by_hand(), weights, "free_bits")
    np.testing.assert_array_equal(gradient.rate_per_latent, [[0, 1], [0, 1]])
    # What is reported is the rate, not what was paid.
    np.testing.assert_array_equal(by_hand().rate, [3, 7])


def test_geco_by_hand():
    objective = objectives.OBJECTIVES["geco"]
    weights = objectives.Weights(1.0, 1.0, distortion_target=3.5)
    carried = {"log_multiplier": np.log(np.float32(2)), "constraint": np.float32(0)}

    @jax.jit
    def step(terms, weights, carried):
        return objective.loss(terms, weights, objectives.Context(priors.Normal(2), random.key(0), 100, carried))

    value, after = step(by_hand(), weights, carried)
    np.testing.assert_allclose(value, 5 + 2 * (4 - 3.5), rtol=4 * EPS)
    # Above the target the multiplier grows, and below it falls.
    assert after["log_multiplier"] > carried["log_multiplier"]
    _, after = step(by_hand(), weights.replace(distortion_target=5.0), carried)
    assert after["log_multiplier"] < carried["log_multiplier"]
    # Missed by a tenth of the target, or by one nat, and for long enough to be the average.
    for target in (20.0, 0.0):
        missed = max(target / 10, 1)
        terms = by_hand().replace(distortion=jnp.full(2, target + missed))
        _, after = step(terms, weights.replace(distortion_target=target), carried | {"constraint": np.float32(missed)})
        gain = after["log_multiplier"] - carried["log_multiplier"]
        np.testing.assert_allclose(gain, 1 / objectives.PATIENCE, rtol=100 * EPS)
    # What is carried has no gradient.
    moved = jax.grad(lambda terms: step(terms, weights, carried)[1]["log_multiplier"])(by_hand())
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(moved))


def test_the_multiplier_of_geco_is_bounded():
    """A target that cannot be reached: after any number of steps the loss is finite, and so is its gradient."""
    objective, weights = objectives.OBJECTIVES["geco"], objectives.Weights(distortion_target=np.float32(0))

    @jax.jit
    def after_steps(terms):
        def step(carried, _):
            _, carried = objective.loss(terms, weights, objectives.Context(priors.Normal(2), random.key(0), 100, carried))
            return carried, None

        start = jax.tree.map(jnp.float32, objective.carried)
        return jax.lax.scan(step, start, None, length=3000)[0]

    for distortion, bound in ((50.0, objectives.LARGEST), (-50.0, 1 / objectives.LARGEST)):
        carried = after_steps(by_hand().replace(distortion=jnp.full(2, distortion)))
        np.testing.assert_allclose(np.exp(carried["log_multiplier"]), bound, rtol=1e-4)


def test_a_target_is_missed_above_it_alone():
    weights = objectives.Weights(distortion_target=np.array([20.0, 20.0, 20.0, 0.0], np.float32))
    found = objectives.missed_by(weights, np.array([15.0, 20.15, 23.0, 0.5]))
    np.testing.assert_allclose(found, [0, 0, 3, 0.5])


def drawn(n: int, latents: int, seed: int) -> tuple[Posterior, jax.Array]:
    """Posteriors of n images, and a draw of each."""
    generator = np.random.default_rng(seed)
    posterior = Posterior(*(jnp.asarray(generator.normal(size=(n, latents)), jnp.float32) for _ in range(2)))
    return posterior, jax.jit(reparameterize)(random.key(seed), posterior)


def test_total_correlation_of_the_whole_set_is_exact():
    posterior, z = drawn(6, 2, 0)
    mean, std = np.asarray(posterior.mean, float), np.asarray(posterior.std, float)
    each = scipy.stats.norm.pdf(np.asarray(z, float)[:, None], mean, std)  # [draw, image, latent]
    expected = np.log(each.prod(axis=2).mean(axis=1)) - np.log(each.mean(axis=1)).sum(axis=1)
    np.testing.assert_allclose(total_correlation(z, posterior, 6), expected, atol=1e-5)


def test_density_of_a_batch_is_unbiased():
    # exp of the joint term, over all batches that hold image 0 and two of the other five, is q(z) of its draw.
    posterior, z = drawn(6, 1, 1)
    mean, std = np.asarray(posterior.mean, float)[:, 0], np.asarray(posterior.std, float)[:, 0]
    exact = scipy.stats.norm.pdf(float(z[0, 0]), mean, std).mean()
    found = []
    for others in itertools.combinations(range(1, 6), 2):
        index = np.array([0, *others])
        batch = Posterior(jnp.tile(posterior.mean[index], (1, 2)), jnp.tile(posterior.log_var[index], (1, 2)))
        # Two equal latents: log q(z) - 2 log q(z_1), so a second set of equal parts would not do; taken apart by hand.
        weights = np.array([1 / 6, 5 / 12, 5 / 12])
        densities = scipy.stats.norm.pdf(float(z[0, 0]), mean[index], std[index])
        joint, marginal = (weights * densities**2).sum(), (weights * densities).sum()
        total = total_correlation(jnp.tile(z[index], (1, 2)), batch, 6)[0]
        np.testing.assert_allclose(total, np.log(joint) - 2 * np.log(marginal), atol=1e-5)
        found.append(marginal)
    np.testing.assert_allclose(np.mean(found), exact, rtol=1e-12)


def test_tc_at_beta_one_is_the_elbo(variables, x):
    terms = terms_of(variables, x, random.key(1), 1.0)
    vae = objectives.Weights(1.0, 1.0, 1.0)
    # Operation by operation: each program as a whole is rounded in its own way.
    assert loss_of(terms, vae, "tc", train_size=50) == loss_of(terms, vae)
    # At any other it adds the total correlation, so many times.
    total = jnp.mean(total_correlation(terms.z, terms.posterior, 50))
    found = loss(terms, vae.replace(beta=4.0), "tc", train_size=50) - loss(terms, vae)
    np.testing.assert_allclose(found, 3 * total, rtol=1e-3)


@pytest.mark.usefixtures("compiled_quickly")  # statistics of many draws
def test_discrepancy_of_equal_and_of_different_samples():
    keys = random.split(random.key(0), 400)
    same = jax.jit(jax.vmap(lambda key: maximum_mean_discrepancy(*random.normal(key, (2, 32, 3)))))(keys)
    # Unbiased: 0 in expectation where the two are equal.
    assert abs(np.mean(same)) < 5 * np.std(same) / np.sqrt(len(same))
    z = random.normal(random.key(1), (64, 3))
    assert maximum_mean_discrepancy(z, z[::-1] + 1) > 5 * np.std(same)


def test_mmd_draws_from_the_prior(variables, x):
    terms = terms_of(variables, x, random.key(1), 1.0)
    weights = objectives.Weights(1.0, 1.0, 0.5, mmd_weight=3.0)
    distance = maximum_mean_discrepancy(terms.z, priors.Normal(2).sample(random.key(9), 5))
    np.testing.assert_allclose(loss(terms, weights, "mmd"), loss(terms, weights) + 3 * distance, rtol=4 * EPS)


@pytest.mark.parametrize("kind", objectives.OBJECTIVES)
def test_only_without_rate_and_discrepancy_are_codes_free_of_the_prior(kind):
    objective = objectives.OBJECTIVES[kind]
    assert objective.holds_to_prior(0.5)
    assert objective.holds_to_prior(0.0) == (kind not in ("weighted", "free_bits", "mmd"))
    assert objectives.OBJECTIVES["mmd"].holds_to_prior(np.float32(0), np.float32(2))
    assert not objectives.OBJECTIVES["mmd"].holds_to_prior(np.float32(0), np.float32(0))


def test_schedules_by_hand():
    times = {"linear": [(0, 0), (0.25, 0.25), (2, 1)], "cosine": [(0, 0), (0.5, 0.5), (3, 1)]}
    times |= {"cyclical": [(0, 0), (0.25, 0.5), (0.75, 1), (1, 0), (1.25, 0.5), (1.999, 1)], "constant": [(0.3, 1)]}
    for name, points in times.items():
        for time, factor in points:
            np.testing.assert_allclose(schedules.SCHEDULES[name](jnp.float32(time)), factor, atol=1e-6)
    # Lengths are in epochs, and only what has a schedule moves.
    weights = objectives.Weights(*map(jnp.float32, (1.0, 1.0, 4.0)))
    found = schedules.scheduled(
        weights, {"beta": "linear", "sigma": "cooling"}, {"beta": jnp.float32(20.0)}, jnp.float32(5.0)
    )
    assert (found.noise_scale, found.distortion_weight, found.beta) == (1, 1, 1)


@pytest.mark.usefixtures("compiled_quickly")  # statistics of many draws
def test_one_importance_sample_has_the_gradient_of_the_vae(variables, x):
    """E over draws of the gradient of log w is that of the ELBO: same keys, the difference is noise around 0."""
    count = 3000

    def bound(variables, key):
        vae = VAE(SPEC).bind(variables)
        posterior = vae.encode(x)
        z = reparameterize(key, posterior)
        log_weight = vae.decode(z, SIGMA).log_prob(x) + vae.prior().log_prob(z) - posterior.log_prob(z)
        return -jnp.mean(objectives.importance_bound(log_weight[None]))

    def elbo(variables, key):
        return loss(objectives.terms(VAE(SPEC).bind(variables), x, key, 1.0, SIGMA), objectives.Weights(*WEIGHTS["vae"]))

    @jax.jit
    def difference(key):
        gradients = [jax.grad(function)(variables, key) for function in (bound, elbo)]
        return jax.tree.map(jnp.subtract, *gradients)

    found = jax.lax.map(difference, random.split(random.key(3), count), batch_size=500)
    for leaf in jax.tree.leaves(found):
        each = np.asarray(leaf, float).reshape(count, -1)
        error = each.std(axis=0) / np.sqrt(count)
        # Some 40 parameters; the decoder's gradients are the same but for rounding.
        assert np.all(np.abs(each.mean(axis=0)) < 5 * error + 1e-5)
    assert any(np.any(np.asarray(leaf) != 0) for leaf in jax.tree.leaves(found["params"]["encoder"]))


def test_weights_as_they_were_when_training_ended():
    """Half way up a line, at the end of a cycle, and of a run that stopped early."""
    weights = jax.tree.map(lambda leaf: np.full(2, leaf), objectives.Weights())
    weights = dataclasses.replace(weights, beta=np.float32([1, 4]))
    for name, length, expected in (("linear", 60.0, [0.5, 2 / 3]), ("cyclical", 10.0, [1.0, 4.0])):
        lengths = {"beta": np.full(2, length, np.float32)}
        found = schedules.ended(weights, {"beta": name}, lengths, np.array([30.0, 10.0]))
        np.testing.assert_allclose(found.beta, expected, rtol=1e-6)
        np.testing.assert_array_equal(found.noise_scale, 1)
