"""Programs that a study will call, compiled in threads while the runs before are trained and evaluated.

XLA compiles without Python's lock. No number depends on it, and what goes wrong in a thread is raised where its program is
called.
"""

import pathlib
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from vae_jax.evaluation import evaluate, metric
from vae_jax.storage import checkpoints
from vae_jax.study import stages
from vae_jax.study.planning import Study
from vae_jax.training import ahead, session

THREADS = 2  # programs that are compiled at a time
GROUPS = 4  # that are compiled before their turn: programs take memory


class Ahead:
    """Compiles for the groups of a study in the order in which they are trained, and then evaluated.

    In one process only: several would have to compile in the same order. Not where data stay on a disk, which would be read
    for it. At the end of the context what has not begun is left out; what is being compiled then cannot be stopped.
    """

    def __init__(self, study: Study, workdir: pathlib.Path, known: Collection[int] = ()):
        self._study, self._workdir, self._known = study, workdir, known
        self._threads = ThreadPoolExecutor(THREADS, "compiler")
        groups = [index for index in range(len(study.groups)) if self._is_here(index) and self._rows(index)]
        self._turns: list[tuple[Callable, int]] = [(self._train, index) for index in groups if not self._is_trained(index)]
        self._turns += [(self._evaluate, index) for index in groups]
        self._begun: list[Future] = []

    def __enter__(self) -> "Ahead":
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(cancel_futures=True)

    def train(self, index: int) -> None:
        """It is the turn of group number `index` to be trained."""
        self._reach(self._train, index)

    def plan(self, index: int) -> evaluate.Plan | None:
        """Of the evaluation of group number `index`, whose turn it is."""
        return self._reach(self._evaluate, index)

    def _reach(self, begin: Callable, index: int) -> Any:
        """What was begun for that turn; begins the next ones."""
        if (begin, index) not in self._turns:
            return None
        turn = self._turns.index((begin, index))
        for following, of in self._turns[len(self._begun) : turn + 1 + GROUPS]:
            self._begun.append(self._threads.submit(following, of))
        return self._begun[turn].result()

    def _train(self, index: int) -> None:
        ahead.compile_ahead(stages.job(self._study, index, self._workdir), self._threads)

    def _evaluate(self, index: int) -> evaluate.Plan:
        """Nothing is known of the runs yet but their shapes."""
        group = self._study.groups[index]
        shapes = session.state_like(group.spec, group.hyperparams, group.dataset)
        state = jax.tree.map(lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape), shapes)
        trained, _ = stages.trained_runs(self._study, group, state, self._rows(index))
        dataset = group.dataset.evaluated(group.eval.images)
        plan = evaluate.Plan.of(metric.Setting(trained.model, group.eval, dataset, trained.objective))
        plan.compile_ahead(self._threads, trained)
        return plan

    def _rows(self, index: int) -> list[int]:
        """The rows of a group that are not known."""
        return [row for row in self._study.rows_of(self._study.groups[index]) if row not in self._known]

    def _is_here(self, index: int) -> bool:
        return jax.process_count() == 1 and not self._study.groups[index].dataset.is_streamed

    def _is_trained(self, index: int) -> bool:
        epochs = self._study.groups[index].spec.train.epochs
        return epochs in checkpoints.steps(stages.checkpoint_directory(self._workdir, index))
