"""Sphinx settings of the course's pages. Built with `python -m minivlm site`, which puts the notebooks beside this file.

No page may ask anything of the network: MathJax lies in _static, fonts are the system's.
"""

project = "minivlm"
html_title = "minivlm"
extensions = ["myst_nb"]
exclude_patterns = ["_static/mathjax/README.md"]

nb_execution_mode = "off"  # the stored outputs are shown
nb_merge_streams = True
nb_render_markdown_format = "myst"  # as the prose: what a cell makes as Markdown may hold a table
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["course.css"]
html_js_files = [("course.js", {"defer": "defer"})]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
mathjax_path = "mathjax/tex-svg.js"
html_theme_options = {"top_of_page_buttons": []}


def say_levels(app, pagename, templatename, context, doctree):
    """Sphinx makes the caption of a table of contents a heading and does not say of which level; a screen reader asks."""
    for part in {"body", "furo_navigation_tree"} & context.keys():
        context[part] = context[part].replace('role="heading">', 'role="heading" aria-level="2">')


def setup(app):
    app.connect("html-page-context", say_levels, priority=900)  # after furo has made its tree
