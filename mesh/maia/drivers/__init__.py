"""All that touches the world: clocks, datagrams, streams, links, and the loop that drives a `Mesh`. Decisions live elsewhere."""
