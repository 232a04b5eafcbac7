"""Images to and from registries: the registry client, pulling, pushing, logging in, searching."""
