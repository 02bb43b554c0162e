"""Calling another node: what is said on a link, and what each side owes the other.

Pure: bytes and `now` in, bytes and events out, so that two sides can talk in memory and any cut of the stream can be tried. A link carries
calls in one direction only: whoever opened it asks (`calling`), the other side answers (`serving`), and two nodes that call each other hold
two links. So two nodes that dial at the same moment need no rule for which link survives, an accepted link is never trusted to be the node
it claims to be, and closing an idle link is one side's decision. Sockets, tasks and timers live in `drivers`.
"""
