"""Studies: arms × seeds of ordinary training runs, and what they show.

command     `python -m refinerl.study`, with dry_run
file        a study's file
plan        the runs of a study, checked before the first one starts
record      study.yaml: the origin of a folder's runs; another study, version or setting is refused
runner      the runs side by side, with progress
runs        a training run in a process of its own, and its rows as they appear
measures    the numbers of a run; the rule of a collapse
results     the finished runs of a folder; the best point of a grid
table       means ± standard errors, paired differences; text (terminal, Markdown)
skill       auditions of refiners against what their arms gain: `python -m refinerl.study.skill`, with correlation
page        index.html (page.html)
bands       the intervals in which a rerun is expected, with student (quantiles of Student's t)
demo        a live view of two arms, and a closing picture
miniature   a tiny model that writes programs about lists, and its problems
"""
