"""The small process that forks containers and minds them, and the client that talks to it."""
