"""Joins the rooms: the only place that knows orchestration, memory, models, tools and the fleet at once.

`engine` conducts runs, `stage` answers a script's effects, `models` finds who completes a transcript, `peers` calls other nodes and serves
their calls, `assembly` builds agents from their documents. A capability offered as another (a worker process as a model provider) is one
small file here.
"""
