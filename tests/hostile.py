"""Model files as an attacker would write them: each names something that would leave a mark, by another route."""

import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

Config = dict[str, Any]


def model(*layers: Config, inbound: Mapping[str, Any] | None = None) -> Config:
    """A functional model of an input and these layers, one after another; `inbound` gives the inputs of a layer."""
    first = {
        "class_name": "InputLayer",
        "config": {"batch_input_shape": [None, 4], "dtype": "float32", "sparse": False, "ragged": False, "name": "in"},
        "name": "in",
        "inbound_nodes": [],
    }
    names = ["in", *(each["config"]["name"] for each in layers)]
    whole = [first]
    for before, each in zip(names, layers, strict=False):
        name = each["config"]["name"]
        nodes = (inbound or {}).get(name, [[[before, 0, 0, {}]]])
        whole.append({**each, "name": name, "inbound_nodes": nodes})
    config = {
        "name": "model",
        "trainable": True,
        "layers": whole,
        "input_layers": [["in", 0, 0]],
        "output_layers": [[names[-1], 0, 0]],
    }
    return {"class_name": "Functional", "config": config}


def layer(kind: str, **config: Any) -> Config:
    """A layer of this class, as older files have it."""
    return {"class_name": kind, "config": config}


def dense(**settings: Any) -> Config:
    """A dense layer with these settings."""
    config = {"name": "dense", "trainable": True, "dtype": "float32", "units": 2, "activation": "linear", **settings}
    return {"class_name": "Dense", "config": config}


def of_new_format(config: Config) -> Config:
    """The same model as .keras files have it: with a module beside each class."""
    modules = {
        "Functional": "keras.src.engine.functional",
        "TFOpLambda": "keras.src.layers.core.tf_op_layer",
        "Constant": "keras.initializers",
    }
    if isinstance(config, dict) and "class_name" in config:
        name = config["class_name"]
        module = modules.get(name, "keras.layers")
        named = {"module": module, "registered_name": name if name in modules else None, **config}
        return {key: _inside(value) for key, value in named.items()}
    return config


def _inside(value: Any) -> Any:
    match value:
        case dict():
            return of_new_format({key: _inside(each) for key, each in value.items()})
        case list():
            return [_inside(each) for each in value]
    return value


def save(config: Config | str, path: Path, version: str = "2.19.0", **besides: Any) -> Path:
    """A model file with this configuration: .keras or .h5, as the name says; `besides` are further attributes."""
    text = config if isinstance(config, str) else json.dumps(config)
    if path.suffix == ".keras":
        return save_archive(path, {"metadata.json": json.dumps({"keras_version": version}), "config.json": text})
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = text
        file.attrs["keras_version"], file.attrs["backend"] = version, "tensorflow"
        for name, value in besides.items():
            file.attrs[name] = json.dumps(value)
        file.create_group("model_weights").attrs["layer_names"] = np.array([], "S1")
    return path


def save_archive(path: Path, members: Mapping[str | zipfile.ZipInfo, str | bytes], weights: bool = True) -> Path:
    """A .keras file with these members, and with weights of no layer."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        if weights:
            archive.writestr("model.weights.h5", hdf5(path.parent, lambda file: file.create_group("vars")))
    return path


def hdf5(folder: Path, fill: Callable[[h5py.File], Any]) -> bytes:
    """The content of an HDF5 file that `fill` writes."""
    path = folder / "filled.h5"
    with h5py.File(path, "w") as file:
        fill(file)
    content = path.read_bytes()
    path.unlink()
    return content


def break_member(path: Path, member: zipfile.ZipInfo) -> None:
    """Change the compressed bytes of a member, after the six with which LZMA begins."""
    content = bytearray(path.read_bytes())
    start = member.header_offset + 30 + len(member.filename)
    for place in range(start + 6, start + member.compress_size):
        content[place] ^= 0x5A + place % 7
    path.write_bytes(content)


def constant(value: Any) -> list[Any]:
    """The inputs of a layer that is called with a constant."""
    return [[["_CONSTANT_VALUE", -1, value, {}]]]


def attacks(mark: Path) -> dict[str, tuple[Config, str]]:
    """Models by the route that each takes, with what has to be named in the refusal; all would make the file `mark`."""
    touch = f"touch {mark}"
    write = {"filename": str(mark), "contents": "x"}

    def function(name: str, module: str | None, registered: str | None = None) -> Config:
        return {"class_name": "function", "config": name, "module": module, "registered_name": registered or name}

    def operation(symbol: str, **arguments: Any) -> Config:
        first, *others = arguments.items()
        inputs = ["_CONSTANT_VALUE", -1, first[1], dict(others)]
        return model(layer("TFOpLambda", name="op", function=symbol), inbound={"op": [inputs]})

    def called(first: Config) -> Config:
        return model(first, inbound={first["config"]["name"]: constant(touch)})

    evil = {"class_name": "X", "module": "evil", "config": {}}

    lambda_layer: Config = {
        "class_name": "Lambda",
        "config": {
            "name": "l", "function": function("getoutput", "subprocess"), "function_type": "function",
            "module": "subprocess", "output_shape": None, "output_shape_type": "raw", "output_shape_module": None,
            "arguments": {},
        },
    }  # fmt: skip
    disguised = {**dense(), "module": "keras.src.layers.core.lambda_layer", "registered_name": "Lambda"}
    renamed = {**lambda_layer["config"], "name": "d"}
    node = {"name": "w", "op": "WriteFile", "input": ["filename", "contents"]}
    constants = {"0": str(mark), "1": "x"}
    nested = {**model(lambda_layer, inbound={"l": constant(touch)})}
    nested["config"] = {**nested["config"], "name": "inner"}
    return {
        "Lambda": (called(lambda_layer), "Lambda"),
        "Lambda in a nested model": (model(nested), r"Lambda.*'model/inner/l'"),
        "Lambda in a wrapper": (
            model(layer("TimeDistributed", name="t", layer=lambda_layer)), r"Lambda.*'model/t/l'",
        ),
        "class of any module": (
            called({**dense(), "class_name": "Popen", "module": "subprocess", "registered_name": "Popen"}),
            "subprocess.Popen",
        ),
        "class of another name": (called({**disguised, "config": renamed}), "Lambda"),
        "class of a module of Keras": (
            called({**dense(), "class_name": "FeatureSpace", "module": "keras.utils", "registered_name": None}),
            "FeatureSpace",
        ),
        "class registered under a dotted name": (
            called({**dense(), "class_name": "os.system", "module": "keras.src.backend", "registered_name": None}),
            "os.system",
        ),
        "value with a module": (
            model(dense(kernel_initializer={"class_name": "TensorShape", "module": "evil", "config": {}})), "evil",
        ),
        "activation": (model(dense(activation=function("system", "os"))), "os.system"),
        "activation that is registered otherwise": (
            model(dense(activation=function("system", "os", "relu"))), "os.system",
        ),
        "activation of a module beside": (model(dense(activation=function("relu", "evil"))), "evil.relu"),
        "activation by a text": (model(dense(activation="deserialize")), "activation=deserialize"),
        "initializer": (
            model(dense(kernel_initializer={"class_name": "system", "module": "os", "config": {}})), "os.system",
        ),
        "regularizer": (
            model(dense(kernel_regularizer={"class_name": "Popen", "module": "subprocess", "config": {}})), "Popen",
        ),
        "value of an initializer": (
            model(dense(bias_initializer={"class_name": "Constant", "config": {"value": evil}})), "evil.X",
        ),
        "size of an embedding": (model(layer("Embedding", name="e", input_dim=evil, output_dim=2)), "evil.X"),
        "split of a text": (
            model(layer("TextVectorization", name="t", standardize=function("getoutput", "subprocess"))), "getoutput",
        ),
        "precision": (model(dense(dtype={"class_name": "X", "module": "evil", "config": {}})), "evil.X"),
        "regularizer by a text": (
            model(dense(kernel_regularizer="deserialize_keras_object")), "kernel_regularizer=deserialize_keras_object",
        ),
        "constraint": (
            model(dense(bias_constraint=evil)), "evil.X",
        ),
        "lambda": (
            model(dense(activation={"class_name": "__lambda__", "config": {"value": ["", None, None]}})), "__lambda__",
        ),
        "typespec": (
            model(dense(bias_initializer={
                "class_name": "__typespec__", "spec_name": "Popen", "module": "subprocess", "config": [],
                "registered_name": None,
            })), "__typespec__",
        ),
        "type of the older format": (
            model(dense(bias_initializer={"class_name": "TypeSpec", "type_spec": "x", "serialized": []})),
            "TypeSpec",
        ),
        "optimizer of a nested model": (
            model({**model(dense()), "compile_config": {"optimizer": evil}}),
            "evil.X",
        ),
        "configuration to build with": (
            model({**dense(), "build_config": {"input_shape": evil}}), "evil.X",
        ),
        "operation that writes": (operation("io.write_file", **write), "io.write_file"),
        "operation that writes, by an older name": (operation("compat.v1.write_file", **write), "write_file"),
        "operation by its raw name": (operation("raw_ops.WriteFile", **write), "raw_ops.WriteFile"),
        "operation that calls Python": (operation("py_function", func="x", inp=[], Tout="float32"), "py_function"),
        "operation of NumPy": (operation("numpy_function", func="x", inp=[], Tout="float32"), "numpy_function"),
        "operation that loads a library": (operation("load_op_library", library_filename="x.so"), "load_op_library"),
        "operation that reads": (operation("io.read_file", filename="/etc/passwd"), "io.read_file"),
        "operation that prints": (operation("print", output_stream=f"file://{mark}"), "print"),
        "function of Keras": (operation("keras.models.load_model", filepath="x"), "keras.models.load_model"),
        "download": (operation("keras.utils.get_file", origin="http://localhost/x"), "keras.utils.get_file"),
        "operation in a graph definition": (
            model(layer("TensorFlowOpLayer", name="w", node_def=node, constants=constants)),
            "TensorFlowOpLayer",
        ),
        "method of a class": (
            model(layer("ClassMethod", name="c", cls_symbol="io.gfile.GFile", method_name="x")), "ClassMethod",
        ),
        "attribute": (
            model(layer("InstanceProperty", name="p", attr_name="__class__")), "InstanceProperty",
        ),
        "cell with a function": (
            model({"class_name": "ResidualWrapper", "config": {
                "name": "r", "residual_fn": "system", "residual_fn_type": "function", "residual_fn_module": "os",
            }}), "ResidualWrapper",
        ),
        "SavedModel from elsewhere": (
            model({"class_name": "TFSMLayer", "module": "keras.layers", "registered_name": None,
                   "config": {"name": "s", "filepath": "/tmp/x"}}), "TFSMLayer",
        ),
        "feature columns": (
            model(layer("DenseFeatures", name="f", feature_columns=[])), "DenseFeatures",
        ),
        "custom tensor type": (
            model(dense(), inbound={"dense": constant([{"_TYPE": "COMPOSITE"}, "{}"])}),
            "a custom tensor type",
        ),
        "vocabulary": (
            model(layer("StringLookup", name="s", vocabulary="/etc/passwd")),
            "vocabulary requires a list, not /etc/passwd",
        ),
        "vocabulary in an object": (
            model({"class_name": "TextVectorization", "config": {
                "name": "s", "vocabulary": {"class_name": "__tensor__", "config": {"value": "/etc/passwd"}},
            }}), "vocabulary requires a list",
        ),
        "weights of words": (
            model(layer("IntegerLookup", name="s", idf_weights="/etc/passwd")),
            "idf_weights requires a list",
        ),
    }  # fmt: skip
