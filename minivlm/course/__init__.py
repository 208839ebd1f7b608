"""The machinery of the course: what runs, builds, publishes and checks the notebooks. No model code.

- lesson, exercises: what a notebook itself uses
- definitions, sources, builder, back_from_lab: text sources and package text -> notebooks, and back
- execute, runner: running notebooks, with progress and a summary
- claims, worker, claims_progress: running them over seeds; rows: what is kept; dependencies, staleness: is it still true
- lab, site: JupyterLab, and the notebooks as web pages

`python -m minivlm --help` lists the commands.
"""
