"""What one run on a machine with a GPU settles: `make gpu-check`, docs/gpu-check.md.

`__main__` the command                 `runner`  each check a process of its own, one line of JSON for each
`checks`   all checks, in their order  `site`    where they run, and what they say
`bundle`   the packages that such a machine may lack, carried as files
The rest are the checks themselves: a module with `run(site, *arguments)`, which yields facts.
"""
