"""Profiles against other counters: the same files, one after another, in processes of their own.

``counters`` is the program of one measurement, ``compare`` runs it for every model and counter,
``report`` writes docs/model-profiles.md from the figures.
"""
