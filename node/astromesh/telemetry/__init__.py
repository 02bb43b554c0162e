"""What a node tells of itself: figures for Prometheus, and the course of recent runs. Never a prompt, a key or an answer."""
