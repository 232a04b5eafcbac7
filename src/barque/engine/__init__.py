"""The engine: containers, their state, and everything that the API asks for."""
