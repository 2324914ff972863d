"""The miniature: a model of a third of a million parameters that writes programs about lists, and its problems.

A problem asks for one to three operations on a list ("take last 2; sort unique; square"), and a program `def f(x):` has
a line for each. The base model was trained to write such programs with the errors of a corpus, and to correct a program
by changing its wrong lines only. Correcting is easier for it than writing because it was trained that way: it stands
for a strong refiner and says nothing about the refiners of other models.

operations    the operations: words, difficulty, right idioms, plausible errors
problems      sampling of problems with tests
corpus        programs with errors and typing errors, and their corrections
vocabulary    the tokenizer, one token per word
training      the base model and its supervised training
gates         measurement of a base: success, correction, copying
making        the files of the miniature and the card of its base

Shipped files: base/, train.jsonl, held_out.jsonl. `python -m refinerl.study.miniature --make FOLDER` makes them. far/
has the same files for the question whether a refiner raises the ceiling: `--shape far` makes them (`operations`).
"""
