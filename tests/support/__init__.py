"""Servers and fakes that tests start."""
