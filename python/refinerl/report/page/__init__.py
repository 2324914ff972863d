"""One or several runs as one HTML page that loads nothing from elsewhere.

building  the page: its files in one, written whole or not at all
folders   runs read from their folders, finished or not, with what they lack
subject   the line that describes a run
curves    metrics, with their titles and sections
outcomes  outcomes of all rollouts over the steps
sampling  rollouts that the page holds
diffs     y → ỹ as a diff of words, and what is kept of the tokens of ỹ
verdict   a run in words
page.html, page.css, *.js   what the browser gets; uplot/ is the library that draws the curves
"""

from refinerl.report.page.building import render, write_page
from refinerl.report.page.subject import subject

__all__ = ["render", "subject", "write_page"]
