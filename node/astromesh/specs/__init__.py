"""The resources that people write, as typed values, and the line of every mistake in them.

Pure: text and an environment in; resources, mistakes and cautions out. A *mistake* keeps a resource from being used; a *caution* says that
a key is understood and not honoured yet, and what happens instead. One bad document never hides a good one. Who finds and reads the files
is `service.config_dir`; who acts on a resource is `runtime`.
"""
