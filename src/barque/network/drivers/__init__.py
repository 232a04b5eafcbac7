"""How each kind of network is made on this machine and joined: one module a driver."""
