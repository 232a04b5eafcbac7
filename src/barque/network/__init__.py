"""Networks: addresses, bridges, network namespaces, published ports, the firewall table."""
