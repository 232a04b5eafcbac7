"""Content by digest, snapshots, and archives of file trees."""
