"""Caption sets made by rule from stored captions: doses, controls and formats for an experiment."""
