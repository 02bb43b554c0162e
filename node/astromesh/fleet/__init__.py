"""What the nodes of this mesh offer, and who serves what.

`offers` turns a node's models and agents into catalogue entries and back; `roster` answers, from the mesh's immutable view, who serves a
model and who hosts an agent. Nothing here opens a connection.
"""
