"""The kinds of layers that support quantization-aware training, one file for each group of them."""

from importlib import import_module
from pkgutil import iter_modules

from experiments.quantization.keras3.kind import Kind, Operation, registered


def kind_of(operation: Operation) -> Kind | None:
    """Return the kind of a layer, or of another operation of a functional graph; None where it is not supported."""
    for module in iter_modules(__path__):
        import_module(f"{__name__}.{module.name}")
    return registered(operation)
