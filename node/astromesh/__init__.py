"""Astromesh: agents from YAML, models from anywhere in the mesh, one REST API on every node. `node/README.md` draws the rooms."""
