"""What training calls, compiled in threads before it is called."""

import math
from concurrent.futures import Executor

import jax
import numpy as np

from vae_jax.system import runs
from vae_jax.training import session
from vae_jax.training.step import program_of


def compile_ahead(job: session.Job, threads: Executor) -> None:
    """Have threads compile what `loop.fit` calls where all runs of the job, and the data, fit on the devices at a time."""
    spec, dataset, count = job.spec, job.dataset, len(job.labels)
    program, mesh = program_of(spec), runs.mesh(count, spec.train.data_devices)
    lanes = mesh.shape["runs"]
    each = math.ceil(count / lanes)
    trees = session.state_like(spec, job.hyperparams, dataset), job.hyperparams, np.zeros(count, np.int32)
    state, hyperparams, epochs = runs.shaped(trees, mesh, each * lanes)
    first = jax.ShapeDtypeStruct((session.measured_first(job), *dataset.spec.shape), np.dtype(np.float32))
    shared = dataset.statistics(spec.model.normalize), dataset.splits["train"].pixels, first
    statistics, pixels, images = runs.shaped(shared, mesh)
    session.advancing(program, "advance", mesh, each, 3).compile_ahead(threads, state, hyperparams, epochs, pixels)
    program.over_runs("init", mesh).compile_ahead(threads, hyperparams, statistics)
    program.over_runs("measure", mesh, mapped=2).compile_ahead(threads, state, hyperparams, images, np.int32(1))
