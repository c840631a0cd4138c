"""What a study or a training run found: answers, doses, pictures, every measurement."""
