"""The paper's figures from runs and studies, drawn with matplotlib.

drawing    figures 4, 5 and 7, held-out success, a run's overview
heat_map   figure 6, with example (the refinement that it shows)
folders    the runs in folders of runs and studies
series     curves over the steps, with their range over seeds
plots      panels and files
"""
