"""The tools that come with a node, one file each."""
