"""Use cases on containers, images, networks and volumes; owns the state of the engine."""
