"""The five models on MNIST: AE, VAE without KL, KL only, VAE and beta-VAE, 20 latents, 2 seeds each.

    python -m experiments.train --config=configs/mnist.py

784-400-20, relu, 10 epochs: the network and length of configs/pytorch_examples.py, whose published test loss `vae` should
reach (elbo about -105.6, grey pixels). Expect `ae` and `vae_no_kl` with the lowest distortion and no use as generators,
`kl_only` with rate 0, and distortion rising and rate falling with beta. 12 runs in one program, about ten minutes on 2
cores (estimated, not measured); `--eval=quick` shortens the evaluation.
"""

from configs import ablations, pytorch_examples

BETAS = (0.25, 4.0)  # 1 is `vae`


def get_config():
    config = pytorch_examples.get_config()
    config.name = "mnist"
    config.train.batch_size = 128
    return config


def sweep(add):
    """Same start, same order, same noise for the same seed."""
    for seed in range(2):
        add(ablations.variant("ae", seed, noise_scale=0.0, beta=0.0))
        add(ablations.variant("vae_no_kl", seed, beta=0.0))
        add(ablations.variant("kl_only", seed, distortion_weight=0.0))
        add(ablations.variant("vae", seed))
        for beta in BETAS:
            add(ablations.variant("beta_vae", seed, beta=beta))
