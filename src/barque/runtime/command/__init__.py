"""`barque runtime`: the OCI runtime as a command, with the options of runc and crun."""
