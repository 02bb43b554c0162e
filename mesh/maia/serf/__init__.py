"""What Serf adds to membership: who means to leave, what everybody is told, and what everybody is asked.

Pure. Bytes of Serf's messages come in with the time; what is to be told on waits in a queue for a share of every packet, what is to be
said to one member goes to the outbox, and what a person should know becomes an event. Nothing here knows how a member is probed or what it
offers: of membership it sees names, addresses and statuses (`port`). Events and queries of people pass through; only what Serf asks of
its own members is answered.
"""
