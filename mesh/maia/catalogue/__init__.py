"""What each node offers: at most 64 small entries a node, written by their owner alone, the same everywhere in the end.

Pure. `shelf` keeps one node's entries, `catalogue` all of them, `digest` compares two catalogues in few bytes, `courier` brings changes to
those who lack them. Values are bytes here: what they mean is the affair of whoever offers and whoever reads.
"""
