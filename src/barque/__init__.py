"""Barque: a container engine in Python that the docker command drives."""

__version__ = "0.1.0"
