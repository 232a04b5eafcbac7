"""A registry server: OCI distribution 1.1 over a content store on a directory or an object store."""
