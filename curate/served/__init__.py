"""An OpenAI-compatible server: where it is, how patiently it is asked, what its answers mean."""
