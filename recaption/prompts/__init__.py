"""What a captioner is asked: templates, their variables, and files of prompts."""
