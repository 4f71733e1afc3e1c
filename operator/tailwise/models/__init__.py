"""A model's URL becomes its profile.

In: a URL and bindings of dynamic axes. Out: ``tailwise.api.profile.ModelProfile``, or an error that names
the field and the way out. Only the graph is read, in a limited child process; weights are skipped. May
import ``tailwise.api`` and ``tailwise.domain``.
"""
