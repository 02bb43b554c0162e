"""What an agent remembers of a conversation.

A history belongs to (agent, session). `port` is what a backend must do; `window` decides, purely, which turns go into a prompt.
"""
