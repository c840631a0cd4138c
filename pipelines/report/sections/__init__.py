"""The report's sections: each a `compute` from inputs to facts, and a `draw` from facts to HTML."""
