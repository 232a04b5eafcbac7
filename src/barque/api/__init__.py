"""The Docker Engine API over HTTP; knows the engine only through the protocols in backends.py."""
