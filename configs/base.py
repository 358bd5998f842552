"""Every field there is, with its default: grey digits, a small MLP, the VAE's objective.

    python -m experiments.train --config=configs/base.py --workdir=runs/mine --config.objective.beta=2

A config file starts from `get_config()` here and changes what its study is about.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """A ConfigDict: the type of a field is the type of its default."""
    config = ml_collections.ConfigDict()
    config.name = "vae"
    config.seed = 0
    config.baselines = ()  # closed-form rows beside the trained ones: ("pca",)

    config.data = ml_collections.ConfigDict()
    config.data.name = "digits"  # "digits", "npz", or an image set of TFDS ("mnist")
    config.data.path = ""  # of the .npz file
    config.data.dir = ""  # of TFDS; "" is $TFDS_DATA_DIR, else ~/tensorflow_datasets
    config.data.download = False  # let TFDS fetch and prepare what is missing
    config.data.binarize = "none"  # "none", "threshold", "static", "dynamic"
    config.data.valid_fraction = 0.1  # of the training split
    config.data.seed = 0  # of the bits

    config.model = ml_collections.ConfigDict()
    config.model.latents = 2
    config.model.encoder = "mlp"  # "mlp", "conv", "linear"
    config.model.decoder = "mlp"
    config.model.hidden = (64, 64)  # widths; conv: channels of each convolution, then a dense width
    config.model.activation = "tanh"
    config.model.likelihood = "bernoulli"  # "bernoulli", "continuous_bernoulli", "gaussian", "discretized_logistic"
    config.model.sigma = "0.1"  # std of the last two: a number, "learned", "per_pixel", "optimal" (gaussian)
    config.model.prior = "normal"  # "normal", "laplace", "student_t", "mixture", "vamp", "flow"
    config.model.prior_components = 10  # Gaussians of "mixture", pseudo-inputs of "vamp"
    config.model.normalize = "center"  # of what the networks see: "none", "center", "standardize", "whiten"

    config.objective = ml_collections.ConfigDict()  # loss = distortion_weight * D + beta * R, nats per image
    config.objective.kind = "weighted"  # "weighted", "capacity", "free_bits", "geco", "tc", "mmd"
    config.objective.noise_scale = 1.0  # z = mean + noise_scale * std * eps
    config.objective.distortion_weight = 1.0
    config.objective.beta = 1.0
    config.objective.importance_samples = 1  # above 1: the importance-weighted bound of so many draws (IWAE)
    config.objective.capacity = 0.0  # capacity: the rate that the batch is pulled to, in nats
    config.objective.capacity_weight = 10.0  # capacity: gamma
    config.objective.free_bits = 0.0  # free_bits: nats per latent that cost nothing
    config.objective.distortion_target = 0.0  # geco: nats
    config.objective.mmd_weight = 0.0  # mmd: of the discrepancy between q(z) and p(z)

    # Factor on a weight over the first epochs: "constant", or "linear:EPOCHS", "cosine:EPOCHS" (from 0), "cyclical:EPOCHS".
    config.schedule = ml_collections.ConfigDict()
    config.schedule.noise_scale = "constant"
    config.schedule.distortion_weight = "constant"
    config.schedule.beta = "constant"
    config.schedule.capacity = "constant"
    config.schedule.capacity_weight = "constant"
    config.schedule.free_bits = "constant"
    config.schedule.distortion_target = "constant"
    config.schedule.mmd_weight = "constant"

    config.optimizer = ml_collections.ConfigDict()  # Adam
    config.optimizer.learning_rate = 3e-3
    config.optimizer.schedule = "cosine"  # decay to 0: "constant", "linear", "cosine", "exponential"
    config.optimizer.b1 = 0.9
    config.optimizer.b2 = 0.999
    config.optimizer.eps = 1e-8
    config.optimizer.cooling = 0.0  # first part of training in which sigma falls from the data's scale to what it should be

    config.train = ml_collections.ConfigDict()
    config.train.epochs = 300
    config.train.batch_size = 128  # 0: the whole training split
    config.train.precision = "float32"  # of the networks while training; "bfloat16": parameters and losses stay float32
    config.train.data_devices = 1  # that share the batch of each run, where a model is too large for one
    config.train.chunk_epochs = 10  # between two looks of the host: one line of metrics each
    config.train.checkpoint_every = 0  # epochs, falling on chunk ends; 0: at the end only

    config.eval = ml_collections.ConfigDict()
    config.eval.samples = 128  # draws of z per image
    config.eval.batch_size = 500
    config.eval.valid = False  # whether the valid split is evaluated too: columns valid_*
    config.eval.decoded = 5000  # decoder means behind each Frechet distance, whose cost grows with pixels^3
    config.eval.importance_samples = 0  # k of the importance bound; 0 leaves it out, as below
    config.eval.importance_splits = ("test",)
    config.eval.aggregate_samples = 1000  # draws by which the rate is taken apart
    config.eval.ais_temperatures = 0  # annealed importance sampling, and its bracket on simulated images
    config.eval.ais_chains = 16
    config.eval.ais_images = 100
    config.eval.gradient_samples = 0  # variance of the gradient, by reparameterisation and by the score function
    config.eval.calibration_samples = 32  # coverage of the decoder's intervals, where it has any
    return config
