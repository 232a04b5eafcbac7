"""Ground floor: errors, identifiers, atomic files. Imports nothing of ours."""
