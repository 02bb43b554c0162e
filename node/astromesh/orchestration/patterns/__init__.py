"""One file per pattern: a script from an opening transcript to an outcome. Pure."""
