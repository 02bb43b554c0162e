"""Where the node meets the machine: opens all parts in order, closes them in reverse, and finds its files, folders and settings."""
