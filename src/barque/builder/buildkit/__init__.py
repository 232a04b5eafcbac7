"""BuildKit's protocol: what buildx, bake and Compose speak to the builder."""
