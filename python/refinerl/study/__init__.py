"""Studies: arms × seeds of ordinary training runs, and what they show.

runs        a training run in a process of its own, and its rows as they appear
miniature   a tiny model that writes programs about lists, and its problems
"""
