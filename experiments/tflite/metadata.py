"""TFLite metadata in a file: what it is, how its input is scaled, and the labels of its classes.

Android Studio, code generators and the Task Library of LiteRT read them. The library that writes them, tflite-support,
has no packages for Python 3.12 and later, so the tables of its schema (metadata_schema.fbs, version
1.0.0) are written here; the numbers below are the places of their fields.
"""

import io
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import flatbuffers
from ai_edge_litert import schema_py_generated as schema

from experiments.tflite.flatbuffer import editable, packed, parsed

NAME = "TFLITE_METADATA"  # of the entry in a file, by which readers find it
IDENTIFIER, PARSER = b"M001", "1.0.0"
LABELS = "labels.txt"  # file in the archive at the end of the file
EARLIEST = (1980, 1, 1, 0, 0, 0)  # date in the archive, so that the same content is the same bytes
FEATURES, IMAGE, NORMALIZATION = 1, 2, 1  # members of the unions of contents and of process units
COLOURS = {3: 1, 1: 2}  # colour space by channels: RGB, grey
AXIS_LABELS = 2  # type of an associated file
Offset = int
Field = Callable[[int], None]


@dataclass(frozen=True)
class Description:
    """What the metadata say: name and description, mean and deviation of the stored values, labels of the classes.

    The input of the model is (stored - mean) / deviation, with one of each for all values, or one for each channel.
    """

    name: str
    text: str
    normalization: tuple[Sequence[float], Sequence[float]] | None = None
    labels: tuple[str, ...] = ()


def with_metadata(content: bytes, description: Description) -> bytes:
    """Return a file with metadata, in place of those that it had; its graphs, weights and outputs are the same.

    The labels are a text file in a ZIP archive behind the file, as readers of metadata expect them.
    """
    model = editable(content)
    entry = schema.MetadataT()
    entry.name, entry.buffer = NAME, len(model.buffers)
    buffer = schema.BufferT()
    buffer.data = list(_metadata(content, description))
    model.buffers.append(buffer)
    model.metadata = [each for each in model.metadata or () if each.name != NAME.encode()] + [entry]
    whole = packed(model)
    if not description.labels:
        return whole
    file = io.BytesIO(whole)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(zipfile.ZipInfo(LABELS, EARLIEST), "\n".join(description.labels))
    return file.getvalue()


def _metadata(content: bytes, description: Description) -> bytes:
    builder = flatbuffers.Builder(1024)
    graph = parsed(content).subgraphs[0]
    inputs = [_input(builder, graph.tensors[place], description) for place in graph.inputs]
    outputs = [_output(builder, graph.tensors[place], description) for place in graph.outputs]
    graphs = [
        _table(
            builder,
            {
                2: _offset(builder, _vector(builder, inputs)),
                3: _offset(builder, _vector(builder, outputs)),
            },
        )
    ]
    root = _table(
        builder,
        {
            0: _text(builder, description.name),
            1: _text(builder, description.text),
            3: _offset(builder, _vector(builder, graphs)),
            7: _text(builder, PARSER),
        },
    )
    builder.Finish(root, file_identifier=IDENTIFIER)
    return bytes(builder.Output())


def _input(builder: Any, tensor: Any, description: Description) -> Offset:
    shape = list(tensor.shape) if tensor.shape is not None else []
    is_image = len(shape) == 4 and shape[-1] in COLOURS
    properties = _table(builder, {0: _byte(builder, COLOURS[shape[-1]])} if is_image else {})
    content = _table(builder, {0: _byte(builder, IMAGE if is_image else FEATURES), 1: _offset(builder, properties)})
    fields = {0: _text(builder, _name(tensor)), 3: _offset(builder, content)}
    if description.normalization:
        mean, deviation = (_floats(builder, each) for each in description.normalization)
        options = _table(builder, {0: _offset(builder, mean), 1: _offset(builder, deviation)})
        unit = _table(builder, {0: _byte(builder, NORMALIZATION), 1: _offset(builder, options)})
        fields[4] = _offset(builder, _vector(builder, [unit]))
    return _table(builder, fields)


def _output(builder: Any, tensor: Any, description: Description) -> Offset:
    content = _table(builder, {0: _byte(builder, FEATURES), 1: _offset(builder, _table(builder, {}))})
    fields = {0: _text(builder, _name(tensor)), 3: _offset(builder, content)}
    if description.labels:
        text = "The label of each class, one a line."
        file = _table(builder, {0: _text(builder, LABELS), 1: _text(builder, text), 2: _byte(builder, AXIS_LABELS)})
        fields[6] = _offset(builder, _vector(builder, [file]))
    return _table(builder, fields)


def _name(tensor: Any) -> str:
    return str((tensor.name or b"").decode("utf-8", "replace"))


def _table(builder: Any, fields: Mapping[int, Field]) -> Offset:
    """Write a table of these fields, whose contents are written already; returns where it is."""
    builder.StartObject(max(fields, default=-1) + 1)
    for place, write in fields.items():
        write(place)
    return int(builder.EndObject())


def _offset(builder: Any, offset: Offset) -> Field:
    return lambda place: builder.PrependUOffsetTRelativeSlot(place, offset, 0)


def _text(builder: Any, text: str) -> Field:
    return _offset(builder, builder.CreateString(text))


def _byte(builder: Any, value: int) -> Field:
    return lambda place: builder.PrependUint8Slot(place, value, 0)


def _vector(builder: Any, offsets: Sequence[Offset]) -> Offset:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())


def _floats(builder: Any, values: Sequence[float]) -> Offset:
    builder.StartVector(4, len(values), 4)
    for value in reversed(values):
        builder.PrependFloat32(value)
    return int(builder.EndVector())
