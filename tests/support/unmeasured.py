"""Loaded by a fork server after all that its runs need: their measurements are made up."""

from tests.support.measurements import make_up

make_up()
