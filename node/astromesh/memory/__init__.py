"""What an agent remembers of its conversations.

A history belongs to (namespace, agent, session) and is made of whole turns: all that was said between a question and its answer, tools
included, or nothing. `port` is what a backend must do, `stored` how a turn is written down; `window` and `summary` decide, purely, what of
a history goes into a prompt.
"""
