"""What a run tells: events while it goes on, summaries at its end."""
