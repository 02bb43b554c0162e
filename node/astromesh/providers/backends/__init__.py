"""One file per kind of model server; the only place where its client is imported."""
