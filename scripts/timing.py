"""How the benchmark measures: contestants interleaved, medians, compile time apart, and what no program can beat."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

Work = Callable[[], Any]  # returns when everything is computed
Product = tuple[int, int, int]  # rows, inputs, outputs of a dense layer


@dataclasses.dataclass(frozen=True)
class Contestant:
    """Something to be timed: `work` does `units` of what is counted (epochs, steps, runs)."""

    name: str
    work: Work
    units: float = 1.0


@dataclasses.dataclass(frozen=True)
class Timing:
    """Seconds per unit (median of the repetitions), and seconds of the first call beyond that: compilation."""

    seconds: float
    compile: float


def measure(contestants: Sequence[Contestant], repeat: int) -> dict[str, Timing]:
    """Time each contestant `repeat` times, in turns, so that a disturbance of the machine meets all alike."""
    first = {one.name: seconds(one.work) for one in contestants}
    times: dict[str, list[float]] = {one.name: [] for one in contestants}
    for _ in range(repeat):
        for one in contestants:
            times[one.name].append(seconds(one.work))
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {
        one.name: Timing(medians[one.name] / one.units, max(first[one.name] - medians[one.name], 0)) for one in contestants
    }


def seconds(work: Work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def training_products(layers: Sequence[Product]) -> list[Product]:
    """The products of one step: each layer forward, its weights' gradient, and but for the first its inputs' gradient."""
    forward = list(layers)
    weights = [(inputs, rows, outputs) for rows, inputs, outputs in layers]
    inputs = [(rows, outputs, inputs) for rows, inputs, outputs in layers[1:]]
    return forward + weights + inputs


def floating_point_operations(products: Sequence[Product]) -> int:
    return sum(2 * rows * inputs * outputs for rows, inputs, outputs in products)


def floor(products: Sequence[Product], parameters: int = 0, steps: int = 1) -> Work:
    """`steps` times these float32 products by NumPy, and one pass over what Adam must touch.

    The pass reads parameters, two moments and gradients and writes the first three: 7 numbers per parameter, here as a
    copy of 3.5, by a thread per core.
    """
    generator = np.random.default_rng(0)
    arrays = [
        (_normal(generator, rows, inputs), _normal(generator, inputs, outputs), np.empty((rows, outputs), np.float32))
        for rows, inputs, outputs in products
    ]
    halves = [(_normal(generator, 7 * parameters // 4, 1), np.empty((7 * parameters // 4, 1), np.float32)) for _ in range(2)]

    def work() -> None:
        for _ in range(steps):
            for a, b, out in arrays:
                np.matmul(a, b, out=out)
            if parameters:
                list(_POOL.map(lambda half: np.copyto(half[1], half[0]), halves))

    return work


_POOL = ThreadPoolExecutor(2)


def _normal(generator: np.random.Generator, *shape: int) -> np.ndarray:
    return generator.standard_normal(shape, np.float32)
