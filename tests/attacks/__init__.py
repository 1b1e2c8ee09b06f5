"""What an enemy sends, as files and short programs, each with the sentence that must come back."""
