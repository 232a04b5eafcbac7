"""Images: names, configs and layers over the stores; import, load, save, commit."""
