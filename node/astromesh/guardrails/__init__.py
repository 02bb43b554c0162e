"""What may go into an agent and what may come out of it.

Pure: text in, text out, and what was found in it. A rule reads a text piece by piece and says of each piece what may be shown by now
(`scan`), so that a stream and a whole text are guarded by the same code; `release` chains the rules of one direction. Which text is
guarded when, and what becomes of a run that a rule blocks, is decided in `runtime.stage`.

What was found is told by its kind and by the number of the rule, never by its text: these words reach logs, traces and callers.
"""
