"""A model card of a run, and the upload of the model with it to the Hugging Face hub.

command    `python -m refinerl.report card`
making     the card (card.md), with method (the run in words) and citation
hub        the upload
"""
