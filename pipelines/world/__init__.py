"""A synthetic world with exact ground truth: scenes, pictures, captions, a parser and a small web.

Read in this order: `scene` (what there is), `render` (how it looks), `writers` (what people say
about it), `parse` (reading a picture back), `facts` (reading a caption back), `judge` (did the
picture do what the caption asked), `web` and `serve` (a list of URLs with real defects behind it),
`weights` (the small models that are trained on this world).
"""
