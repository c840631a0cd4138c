"""The report: one self-contained HTML file that a person likes to read.

`inputs` finds what there is; every module of `sections` computes its facts and then draws them with
`charts`, `pictures` and a template; `page` escapes everything and puts the parts together.
"""
