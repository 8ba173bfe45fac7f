"""The random numbers of an epoch: a function of the seed and the epoch, so that a training can be resumed exactly."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.system.keras_version import version_of

if TYPE_CHECKING:
    from tf_keras import Model

# Parts of the names of TensorFlow's ops that draw random numbers, or run Python code that might.
DRAWING = ("Random", "Multinomial", "TruncatedNormal", "Poisson", "Rng", "StatefulUniform", "StatefulStandard",
           "Shuffle", "Sampler", "PyFunc")  # fmt: skip


def mixed(seed: int, epoch: int) -> int:
    """Return the seed of an epoch."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0] & 0x7FFFFFFF)


@dataclass
class Randomness:
    """Seeds everything random in an epoch, such as Dropout.

    `start` stands for the initial model. With it, fine-tuning in Keras 3 does not drop the values again that training
    dropped in its first epochs, on the same images in the same order. In Keras 2 a new trace draws others anyway.
    """

    model: "Model"
    start: int
    step: Any = field(default=None, init=False)  # the traced training step of Keras 2, if nothing in it is random

    @contextmanager
    def of_epoch(self, seed: int) -> Iterator[None]:
        """Seed what an epoch draws.

        A trace of Keras 2 holds its seeds, so the next epoch requires a new one, unless nothing was drawn: neither in
        the step nor, with Python's or NumPy's generators, while it was traced.
        """
        from experiments.system.tensorflow import keras

        keras.utils.set_random_seed(seed)  # of Python, NumPy and TensorFlow
        if version_of(self.model) == 3:
            for number, state in enumerate(_generators(self.model)):
                state.assign(np.random.SeedSequence([seed, self.start, number]).generate_state(2).astype(state.dtype))
            yield
            return
        if self.step is None or self.step is not self.model.train_function:
            self.model.make_train_function(force=True)
        before = _states_in_python()
        yield
        drawn = _states_in_python() != before or _draws(self.model.train_tf_function)
        self.step = None if drawn else self.model.train_function


def _generators(model: "Model") -> list[Any]:
    """Return the states of the random generators of a Keras 3 model: variables that are not weights."""
    from keras.src.random.seed_generator import global_seed_generator

    weights = {id(weight) for weight in model.weights}
    return [*(each for each in model.variables if id(each) not in weights), global_seed_generator().state]


def _states_in_python() -> tuple[object, ...]:
    name, keys, position, *gauss = np.random.get_state(legacy=True)
    return random.getstate(), name, np.asarray(keys).tobytes(), position, *gauss


def _draws(function: Any) -> bool:
    """Whether a function of TensorFlow has ops that draw random numbers, in any of its traces.

    Of a step that runs eagerly, without a function, nothing is known.
    """
    if function is None:
        return True
    for trace in function._list_all_concrete_functions():
        graph = trace.graph.as_graph_def()
        nodes = [*graph.node, *(node for inner in graph.library.function for node in inner.node_def)]
        if any(part in node.op for node in nodes for part in DRAWING):
            return True
    return False
