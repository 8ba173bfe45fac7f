"""Which layers support quantization, in training or after it: `python -m benchmarks.layers_supported`.

Each is put into a small model, which is trained for a few steps on random numbers and converted in three ways: by TFMOT
(its quantize_model, on the same model in Keras 2), by the suite's own engine for Keras 3, and by the converter after
training in float (Keras 3, all int8). A cell says what the file computes in, read from its ops: `int8` where all do,
`float` with the ops that do not, or `refused`. `steps` is how far the file's outputs are from those of the model that
our engine trained, on average, in steps of the output's integers. Every model is made and converted in a process that
may crash. Writes benchmarks/results/layers_supported/.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.harness.benchmark import Benchmark
from benchmarks.harness.markdown import markdown
from benchmarks.harness.pages import own
from benchmarks.harness.results import Results, of_some_rows, options
from experiments.system.die_with_parent import die_with_parent
from experiments.system.errors import UserError, first_line
from experiments.system.progress import say

LEAST_SUPPORTED = 50  # layers and blocks that our engine computes in int8
MOST_STEPS = 4.0  # of the output's integers, on average, between a file and the model that it was made from
EXAMPLES, BATCH, CLASSES = 64, 16, 3
SHAPES = {"image": (8, 8, 4), "series": (8, 6), "vector": (12,), "words": (8,), "volume": (4, 4, 4, 2)}
WORDS = 20
NO_LAYER = "no such layer"  # in Keras 2

Keras = Any
Tensor = Any
Model = Any


@dataclass(frozen=True)
class Block:
    """One or a few layers, in either version of Keras, between an input and a dense layer."""

    theme: str
    name: str
    takes: str
    build: Callable[[Keras, Tensor], Tensor]


@dataclass(frozen=True)
class Outcome:
    """The result of one block."""

    theme: str
    block: str
    tfmot: str
    own: str
    converter: str
    steps: float  # NaN without a file of our engine
    why: str  # the reasons of TFMOT, our engine and the converter, if they refused it


def _conv(keras: Keras, x: Tensor, **more: Any) -> Tensor:
    return keras.layers.Conv2D(4, 3, padding="same", **more)(x)


def _normal(keras: Keras, x: Tensor, relu: bool = True) -> Tensor:
    x = keras.layers.BatchNormalization()(x)
    return keras.layers.ReLU()(x) if relu else x


def _residual(keras: Keras, x: Tensor) -> Tensor:
    inner = _normal(keras, _conv(keras, _normal(keras, _conv(keras, x))), relu=False)
    return keras.layers.ReLU()(keras.layers.Add()([x, inner]))


def _inverted(keras: Keras, x: Tensor) -> Tensor:
    inner = _normal(keras, keras.layers.Conv2D(8, 1, use_bias=False)(x))
    inner = _normal(keras, keras.layers.DepthwiseConv2D(3, padding="same", use_bias=False)(inner))
    return keras.layers.Add()([x, _normal(keras, keras.layers.Conv2D(4, 1, use_bias=False)(inner), relu=False)])


def _squeezed(keras: Keras, x: Tensor) -> Tensor:
    x = _conv(keras, x, activation="relu")
    shares = keras.layers.Reshape((1, 1, 4))(keras.layers.GlobalAveragePooling2D()(x))
    shares = keras.layers.Conv2D(2, 1, activation="relu")(shares)
    return keras.layers.Multiply()([x, keras.layers.Conv2D(4, 1, activation="sigmoid")(shares)])


def _encoder(keras: Keras, x: Tensor) -> Tensor:
    attended = keras.layers.MultiHeadAttention(2, 4)(x, x)
    x = keras.layers.LayerNormalization()(keras.layers.Add()([x, attended]))
    inner = keras.layers.Dense(6)(keras.layers.Dense(12, activation="relu")(x))
    return keras.layers.LayerNormalization()(keras.layers.Add()([x, inner]))


def _decoder(keras: Keras, x: Tensor) -> Tensor:
    small = keras.layers.MaxPooling2D()(_conv(keras, x, activation="relu"))
    large = keras.layers.Conv2DTranspose(4, 3, strides=2, padding="same", activation="relu")(small)
    return _conv(keras, keras.layers.Concatenate()([x, large]), activation="relu")


def _shared(keras: Keras, x: Tensor) -> Tensor:
    layer = keras.layers.Conv2D(4, 3, padding="same", activation="relu")
    return layer(layer(x))


def _within(keras: Keras, x: Tensor) -> Tensor:
    given = keras.layers.Input(SHAPES["image"])
    return keras.Model(given, _conv(keras, given, activation="relu"))(x)


def _operators(_: Keras, x: Tensor) -> Tensor:
    return x * 2.0 + x


def _of_two(layer: str, **arguments: Any) -> Callable[[Keras, Tensor], Tensor]:
    """Return a block with a layer on the outputs of two convolutions."""
    return lambda keras, x: getattr(keras.layers, layer)(**arguments)([_conv(keras, x), _conv(keras, x)])


def _behind(layer: str, **arguments: Any) -> Callable[[Keras, Tensor], Tensor]:
    """Return a block with a layer after a convolution."""
    return lambda keras, x: getattr(keras.layers, layer)(**arguments)(_conv(keras, x))


def _one(layer: str, *more: Any, **arguments: Any) -> Callable[[Keras, Tensor], Tensor]:
    """Return a block of one layer."""
    return lambda keras, x: getattr(keras.layers, layer)(*more, **arguments)(x)


def _each(keras: Keras, x: Tensor) -> Tensor:
    return keras.layers.TimeDistributed(keras.layers.Dense(5, activation="relu"))(x)


def _both_ways(keras: Keras, x: Tensor) -> Tensor:
    return keras.layers.Bidirectional(keras.layers.LSTM(4, return_sequences=True))(x)


def _pair(layer: str) -> Callable[[Keras, Tensor], Tensor]:
    return lambda keras, x: getattr(keras.layers, layer)()([keras.layers.Dense(6)(x), keras.layers.Dense(6)(x)])


def _of_two_series(keras: Keras, x: Tensor) -> Tensor:
    return keras.layers.Dot(axes=(1, 1))([keras.layers.Dense(6)(x), keras.layers.Dense(6)(x)])


_ALL = (
    *(
        Block("dense", f"Dense, {activation}", "vector", _one("Dense", 8, activation=activation))
        for activation in ("linear", "relu", "sigmoid", "tanh", "softmax", "swish")
    ),
    Block("dense", "Dense of a series", "series", _one("Dense", 5, activation="relu")),
    Block("dense", "Dense, BatchNorm, ReLU", "vector", lambda k, x: _normal(k, k.layers.Dense(8)(x))),
    Block("dense", "EinsumDense", "series", _one("EinsumDense", "abc,cd->abd", (8, 5), bias_axes="d")),
    Block("convolution", "Conv2D", "image", _one("Conv2D", 4, 3)),
    Block("convolution", "Conv2D, strides 2", "image", _one("Conv2D", 4, 3, strides=2, padding="same")),
    Block("convolution", "Conv2D, dilated", "image", _one("Conv2D", 4, 3, dilation_rate=2)),
    Block("convolution", "Conv2D, sigmoid", "image", _one("Conv2D", 4, 3, activation="sigmoid")),
    Block("convolution", "Conv2D, swish", "image", _one("Conv2D", 4, 3, activation="swish")),
    Block("convolution", "Conv2D, BatchNorm, ReLU", "image", lambda k, x: _normal(k, _conv(k, x))),
    Block("convolution", "DepthwiseConv2D", "image", _one("DepthwiseConv2D", 3)),
    Block("convolution", "DepthwiseConv2D, 2 a channel", "image", _one("DepthwiseConv2D", 3, depth_multiplier=2)),
    Block("convolution", "SeparableConv2D", "image", _one("SeparableConv2D", 4, 3)),
    Block("convolution", "Conv2DTranspose", "image", _one("Conv2DTranspose", 4, 3, strides=2)),
    Block("convolution", "Conv1D", "series", _one("Conv1D", 4, 3, activation="relu")),
    Block("convolution", "Conv1D, causal", "series", _one("Conv1D", 4, 3, padding="causal")),
    Block("convolution", "DepthwiseConv1D", "series", _one("DepthwiseConv1D", 3)),
    Block("convolution", "SeparableConv1D", "series", _one("SeparableConv1D", 4, 3)),
    Block("convolution", "Conv1DTranspose", "series", _one("Conv1DTranspose", 4, 3)),
    Block("convolution", "Conv3D", "volume", _one("Conv3D", 4, 3)),
    Block("normalization", "BatchNormalization, first", "image", _one("BatchNormalization")),
    Block("normalization", "LayerNormalization", "series", _one("LayerNormalization")),
    Block("normalization", "GroupNormalization", "image", _one("GroupNormalization", 2)),
    Block("normalization", "RMSNormalization", "series", _one("RMSNormalization")),
    Block("normalization", "UnitNormalization", "series", _one("UnitNormalization")),
    Block("normalization", "Rescaling, first", "image", lambda k, x: _conv(k, k.layers.Rescaling(0.5)(x))),
    Block(
        "normalization",
        "Normalization, first",
        "image",
        lambda k, x: _conv(k, k.layers.Normalization(mean=[0.1] * 4, variance=[2.0] * 4)(x)),
    ),
    *(
        Block("activation", f"Activation, {activation}", "image", _behind("Activation", activation=activation))
        for activation in ("relu6", "sigmoid", "tanh", "softmax", "swish", "hard_sigmoid", "gelu", "elu")
    ),
    Block("activation", "ReLU", "image", _behind("ReLU")),
    Block("activation", "LeakyReLU", "image", _behind("LeakyReLU")),
    Block("activation", "PReLU", "image", _behind("PReLU", shared_axes=[1, 2])),
    Block("activation", "Softmax", "image", _behind("Softmax")),
    Block("merge", "Add", "image", _of_two("Add")),
    Block("merge", "Subtract", "image", _of_two("Subtract")),
    Block("merge", "Multiply", "image", _of_two("Multiply")),
    Block("merge", "Average", "image", _of_two("Average")),
    Block("merge", "Maximum", "image", _of_two("Maximum")),
    Block("merge", "Minimum", "image", _of_two("Minimum")),
    Block("merge", "Concatenate", "image", _of_two("Concatenate")),
    Block("merge", "Dot", "series", _of_two_series),
    Block("pooling", "MaxPooling2D", "image", _behind("MaxPooling2D")),
    Block("pooling", "AveragePooling2D", "image", _behind("AveragePooling2D", pool_size=2)),
    Block("pooling", "GlobalAveragePooling2D", "image", _behind("GlobalAveragePooling2D")),
    Block("pooling", "GlobalMaxPooling2D", "image", _behind("GlobalMaxPooling2D")),
    Block("pooling", "AveragePooling1D", "series", lambda k, x: k.layers.AveragePooling1D(2)(k.layers.Dense(6)(x))),
    Block(
        "pooling",
        "GlobalAveragePooling1D",
        "series",
        lambda k, x: k.layers.GlobalAveragePooling1D()(k.layers.Dense(6)(x)),
    ),
    Block("shape", "ZeroPadding2D", "image", _behind("ZeroPadding2D")),
    Block("shape", "Cropping2D", "image", _behind("Cropping2D")),
    Block("shape", "Permute", "image", _behind("Permute", dims=(3, 1, 2))),
    Block("shape", "UpSampling2D", "image", _behind("UpSampling2D")),
    Block("shape", "UpSampling2D, bilinear", "image", _behind("UpSampling2D", interpolation="bilinear")),
    Block("shape", "Dropout", "image", _behind("Dropout", rate=0.2)),
    Block("sequence", "Embedding", "words", _one("Embedding", WORDS, 8)),
    Block("sequence", "SimpleRNN", "series", _one("SimpleRNN", 4)),
    Block("sequence", "LSTM", "series", _one("LSTM", 4)),
    Block("sequence", "GRU", "series", _one("GRU", 4)),
    Block("sequence", "Bidirectional LSTM", "series", _both_ways),
    Block("sequence", "TimeDistributed Dense", "series", _each),
    Block("sequence", "MultiHeadAttention", "series", lambda k, x: k.layers.MultiHeadAttention(2, 4)(x, x)),
    Block("sequence", "Attention", "series", _pair("Attention")),
    Block("sequence", "AdditiveAttention", "series", _pair("AdditiveAttention")),
    Block("block", "residual (ResNet)", "image", _residual),
    Block("block", "inverted residual (MobileNetV2)", "image", _inverted),
    Block("block", "squeeze and excite", "image", _squeezed),
    Block("block", "encoder and decoder", "image", _decoder),
    Block("block", "transformer encoder", "series", _encoder),
    Block("block", "a layer called twice", "image", _shared),
    Block("block", "a model within", "image", _within),
    Block("block", "operators between layers", "image", _operators),
)
BLOCKS = {block.name: block for block in _ALL}


def _model(block: Block, keras: Keras) -> Model:
    keras.backend.clear_session()  # so that layers, which refusals name, are numbered as in any other selection of rows
    keras.utils.set_random_seed(0)
    given = keras.layers.Input(SHAPES[block.takes], dtype="int32" if block.takes == "words" else "float32")
    values = block.build(keras, given)
    flat = keras.layers.Flatten()(values) if len(values.shape) > 2 else values
    return keras.Model(given, keras.layers.Dense(CLASSES)(flat))


def _examples(block: Block) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    shape = (EXAMPLES, *SHAPES[block.takes])
    values = rng.integers(0, WORDS, shape) if block.takes == "words" else rng.normal(size=shape)
    dtype = np.int32 if block.takes == "words" else np.float32
    return values.astype(dtype), rng.integers(0, CLASSES, EXAMPLES)


def _train(model: Model, keras: Keras, block: Block) -> None:
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(*_examples(block), batch_size=BATCH, epochs=2, verbose=0)


def _by_tfmot(block: Block) -> bytes:
    """Return the file that TFMOT's quantize_model leads to."""
    from experiments.system.tensorflow import keras, tf

    # isort: split
    import tensorflow_model_optimization as tfmot

    quantized = tfmot.quantization.keras.quantize_model(_model(block, keras))
    _train(quantized, keras, block)
    converter = tf.lite.TFLiteConverter.from_keras_model(quantized)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    content: bytes = converter.convert()
    return content


def _by_our_engine(block: Block) -> tuple[bytes, float]:
    """Return the file, and how far its outputs are from those of the model that it was made from, in steps."""
    from experiments.model.flattening import flatten
    from experiments.quantization.engines import engine_of
    from experiments.system.tensorflow import keras_3
    from experiments.tflite.conversion import convert
    from experiments.tflite.schemes import Learned

    keras, (examples, _) = keras_3(), _examples(block)
    model = _model(block, keras)
    if any(isinstance(layer, keras.Model) for layer in model.layers):
        model = flatten(model, [SHAPES[block.takes]], model.name)
    engine = engine_of(model)
    found = engine.survey(model)
    found.refuse_unsupported([layer.name for layer in model.layers])
    quantized = engine.annotated(model, None)
    engine.start_ranges(quantized, model, examples)
    _train(quantized, keras, block)
    content = convert(quantized, Learned(), lambda count: examples[:count]).content
    return content, _steps(content, np.asarray(quantized(examples, training=False)), examples)


def _by_the_converter(block: Block) -> bytes:
    """Return the file of the float model, quantized after training."""
    from experiments.system.tensorflow import keras_3
    from experiments.tflite.conversion import convert
    from experiments.tflite.schemes import Int8

    model, (examples, _) = _model(block, keras_3()), _examples(block)
    _train(model, keras_3(), block)
    return convert(model, Int8(EXAMPLES), lambda count: examples[:count]).content


def _steps(content: bytes, wanted: Any, examples: Any) -> float:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    (taken,), (given,) = interpreter.get_input_details(), interpreter.get_output_details()
    outputs = []
    for example in examples:
        interpreter.set_tensor(taken["index"], example[None].astype(taken["dtype"]))
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(given["index"])[0])
    return float(np.abs(np.array(outputs) - wanted).mean() / (np.ptp(wanted) / 255))


def computes_in(content: bytes) -> str:
    """Return what all ops of a file compute in, or which are in float."""
    from experiments.tflite.graph import read_ops

    others = [op.op for op in read_ops(content, []) if op.computes and op.types != "int8"]
    return f"float: {', '.join(sorted(set(others)))}" if others else "int8"


def outcome(name: str) -> Outcome:
    """Return the result of a block; called in a separate process."""
    from experiments.system.silence import native_stderr_silenced

    block, steps, why = BLOCKS[name], [float("nan")], []

    def ours(each: Block) -> bytes:
        content, steps[0] = _by_our_engine(each)
        return content

    def cell(of: str, make: Callable[[Block], bytes]) -> str:
        try:
            with native_stderr_silenced():
                return computes_in(make(block))
        except Exception as error:  # noqa: BLE001  # whatever it is: that is the finding
            if of == "TFMOT" and isinstance(error, AttributeError) and "keras.layers" in str(error):
                return NO_LAYER
            why.append(f"{of}: {reason(error)}")
            return "refused"

    tfmot, own_engine, converter = cell("TFMOT", _by_tfmot), cell("own", ours), cell("converter", _by_the_converter)
    return Outcome(block.theme, name, tfmot, own_engine, converter, steps[0], " | ".join(why))


def reason(error: Exception) -> str:
    """Return why a block was refused, without addresses of functions, which differ in each process."""
    text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {first_line(error)}"
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def outcomes(names: Sequence[str]) -> Iterator[Outcome]:
    """Yield the result of each block; one whose conversion crashes the process is not tried further."""
    pool = _pool()
    for name in names:
        try:
            found = pool.submit(outcome, name).result()
        except BrokenProcessPool:
            found = Outcome(
                BLOCKS[name].theme, name, "crashed", "crashed", "crashed", float("nan"), "the process ended"
            )
            pool = _pool()
        say(f"  {name}: TFMOT {found.tfmot}; own {found.own}; converter {found.converter} {found.why}")
        yield found
    pool.shutdown()


def _pool() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=die_with_parent)


def published_table(table: pd.DataFrame) -> str:
    """Return the table of benchmarks.layers_supported."""
    shown = pd.DataFrame(
        {
            "": table["theme"].where(table["theme"] != table["theme"].shift(), ""),
            "layer or block": table["block"],
            "TFMOT, Keras 2": table["tfmot"],
            "own engine, Keras 3": table["own"],
            "converter, after training": table["converter"],
            "steps": [f"{value:.1f}" if not np.isnan(value) else "" for value in table["steps"]],
        }
    )
    counts = ", ".join(
        f"{title} {(table[column] == 'int8').sum()}"
        for column, title in (("tfmot", "TFMOT"), ("own", "own engine"), ("converter", "converter"))
    )
    return f"{markdown(shown)}\nAll int8, of {len(table)}: {counts}.\n"


def failures(table: pd.DataFrame) -> list[str]:
    """Return the missed targets."""
    found = []
    if (supported := int((table["own"] == "int8").sum())) < LEAST_SUPPORTED:
        found.append(f"{supported} blocks are int8 with our engine instead of {LEAST_SUPPORTED}")
    far = table[table["steps"] > MOST_STEPS]
    found += [f"{row.block} is {row.steps:.1f} steps from its model" for row in far.itertuples()]
    return found


BENCHMARK = Benchmark(
    name="layers_supported",
    title="Which layers and blocks become int8: with TFMOT, with the engine for Keras 3, and after training",
    minutes=15,
    tables=(own("layers_supported", published_table),),
)


def main() -> None:
    """The command line."""
    parser = options(BENCHMARK, __doc__)
    parser.add_argument("--only", nargs="+", metavar="BLOCK", choices=BLOCKS, help="renew only these rows of the table")
    arguments = parser.parse_args()
    results = of_some_rows(BENCHMARK) if arguments.only else Results(BENCHMARK)
    names = arguments.only or (["Dense, relu", "Conv1D"] if arguments.quick else list(BLOCKS))
    rows: dict[str, Any] = {found.block: asdict(found) for found in outcomes(names)}
    if arguments.only:
        published = pd.read_csv(results.folder / f"{BENCHMARK.name}.csv").to_dict("records")
        rows = {**{row["block"]: row for row in published}, **rows}
        rows = {name: rows[name] for name in BLOCKS if name in rows}
    table = pd.DataFrame(rows.values())
    results.finish(table, arguments.quick, [] if arguments.quick else failures(table))


if __name__ == "__main__":
    main()
