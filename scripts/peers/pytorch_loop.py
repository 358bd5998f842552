"""A loop in the manner of pytorch/examples (vae/main.py): modules, autograd, Adam, one Python iteration a batch.

The images are a tensor in memory, shuffled by index: that is faster than the example's DataLoader.
"""

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn, optim
from torch.nn import functional


class VAE(nn.Module):
    """An encoder to 2 * latents numbers, a decoder to logits."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module):
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(self, x):
        mu, logvar = self.encoder(x).chunk(2, dim=-1)
        z = mu + torch.randn_like(mu) * torch.exp(0.5 * logvar)
        return torch.sigmoid(self.decoder(z)), mu, logvar


def mlp(pixels: int, hidden: Sequence[int], latents: int) -> VAE:
    """Dense layers and ReLU; images are flat."""
    widths = [latents, *reversed(hidden)]
    return VAE(_dense([pixels, *hidden], 2 * latents), _dense(widths, pixels))


def _dense(widths: Sequence[int], outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], outputs))


def conv(channels: Sequence[int], dense: int, latents: int, size: int) -> VAE:
    """4x4 convolutions of stride 2 and their mirror, as in disentanglement_lib; images are [1, size, size]."""
    layers: list[nn.Module] = []
    for before, after in zip([1, *channels], channels, strict=False):
        layers += [nn.Conv2d(before, after, 4, 2, 1), nn.ReLU()]
    inner = size >> len(channels)
    flat = channels[-1] * inner * inner
    encoder = nn.Sequential(*layers, nn.Flatten(), nn.Linear(flat, dense), nn.ReLU(), nn.Linear(dense, 2 * latents))
    layers = [nn.Linear(latents, dense), nn.ReLU(), nn.Linear(dense, flat), nn.ReLU()]
    layers.append(nn.Unflatten(1, (channels[-1], inner, inner)))
    outward = [*reversed(channels), 1]
    for before, after in itertools.pairwise(outward):
        layers += [nn.ConvTranspose2d(before, after, 4, 2, 1), nn.ReLU()]
    return VAE(encoder, nn.Sequential(*layers[:-1]))


def epoch(model: VAE, images: np.ndarray, batch_size: int) -> Callable[[], float]:
    """A function that trains `model` for one epoch on images in [0, 1] and returns its summed loss."""
    optimizer = optim.Adam(model.parameters(), lr=1e-3)
    data = torch.from_numpy(images)

    def train() -> float:
        model.train()
        train_loss = 0.0
        order = torch.randperm(len(data))
        for start in range(0, len(data) - batch_size + 1, batch_size):
            x = data[order[start : start + batch_size]]
            optimizer.zero_grad()
            reconstruction, mu, logvar = model(x)
            bce = functional.binary_cross_entropy(reconstruction, x, reduction="sum")
            loss = bce - 0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
            loss.backward()
            train_loss += loss.item()
            optimizer.step()
        return train_loss

    return train
