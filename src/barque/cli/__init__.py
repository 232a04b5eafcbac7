"""The barque command: Docker's verbs, flags and output."""
