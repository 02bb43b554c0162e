"""Where the node meets the machine: opens all parts in order and closes them in reverse, and finds its files, its folders and its settings."""
