"""Between a person and a command: options out of settings, errors in one sentence, no torn bars."""
