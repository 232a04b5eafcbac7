"""One module per kernel facility; the only room that talks to libc."""
