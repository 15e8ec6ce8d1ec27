"""What the stores of one kind of backend have in common, whatever they keep there."""
