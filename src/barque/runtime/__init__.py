"""The OCI runtime: from a config.json to a running process, and the command that drives it."""
