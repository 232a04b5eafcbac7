"""Pure: references, digests, platforms, descriptors, manifests, image configs. No I/O."""
