"""What a caption must be: repair, and gates that say what is wrong."""
