"""Bytes and values: the membership wire of memberlist, and Maia's own messages inside it.

Pure. Every length is checked before it is used, and whatever the bytes are, decoding raises `DatagramRejected` and nothing else. Nothing
here knows who is a member: a message is well formed or it is not, and what it means is decided in `membership` and `catalogue`.
"""
