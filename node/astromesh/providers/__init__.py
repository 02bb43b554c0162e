"""Model servers that a node can call: one port, one backend for each kind of server.

What runs in this node's own worker processes is `inference`; what runs on other nodes is `runtime.peers`. All three stream the same values.
"""
