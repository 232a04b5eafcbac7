"""Raw netlink: a pure codec, a connection, and the messages of rtnetlink that networks need."""
