"""How an agent goes about a question: scripts that yield effects.

Pure: no await, no clock, no randomness. What a script wants from the world it yields (`astromesh.effects`), and `runtime.stage` answers. So
every pattern can be tested as a conversation, and a run may later continue on another node.
"""
