"""Composition root: configuration, sockets, start and stop of the engine."""
