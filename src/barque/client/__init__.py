"""A light client of the Engine API, used by the command."""
