"""Build caches that lie elsewhere: in registries, in images, in folders of clients."""
