"""`barque runtime`: the OCI command line, as runc and crun take it, for other engines to drive."""
