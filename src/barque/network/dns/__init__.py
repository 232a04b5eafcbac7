"""Names for containers: the server at 127.0.0.11 of every user-defined network."""
