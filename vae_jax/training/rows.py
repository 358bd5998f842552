"""The part of a batch that one device has, where several devices share the batch of a run."""

import dataclasses
from typing import TypeVar

from jax import lax, random
from jaxtyping import Array, Float, Shaped

Tree = TypeVar("Tree")


@dataclasses.dataclass(frozen=True)
class Rows:
    """`count` rows of a batch, on each of `devices` devices along the mesh's axis "data".

    Each device differentiates the loss of the whole batch with respect to its own rows; the average of these gradients
    over the devices is the gradient of the loss.
    """

    devices: int = 1
    count: int = 0  # used where there are several devices

    def share(self, x: Float[Array, "batch *shape"]) -> Float[Array, "rows *shape"]:
        """This device's rows of a batch."""
        if self.devices == 1:
            return x
        return lax.dynamic_slice_in_dim(x, lax.axis_index("data") * self.count, self.count)

    def joined(self, x: Shaped[Array, "rows *shape"]) -> Shaped[Array, "batch *shape"]:
        """The batch, of which each device was given its own rows only."""
        return x if self.devices == 1 else lax.all_gather(x, "data", tiled=True)

    def draw(self, key, shape: tuple[int, ...], dtype) -> Array:
        """`random.normal` for these rows, or for several draws of each one after another, as one device alone draws it."""
        if self.devices == 1:
            return random.normal(key, shape, dtype)
        whole = random.normal(key, (shape[0] // self.count, self.devices, self.count, *shape[1:]), dtype)
        return whole[:, lax.axis_index("data")].reshape(shape)

    def gather(self, terms):
        """The terms of the whole batch, from objectives.Terms of these rows."""
        return terms if self.devices == 1 else terms.gathered("data")

    def mean(self, tree: Tree) -> Tree:
        """Over the devices: of their gradients it is the gradient."""
        return tree if self.devices == 1 else lax.pmean(tree, "data")


WHOLE = Rows()  # one device has the whole batch
