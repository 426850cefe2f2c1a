"""Floor 1: configuration, and the small words that every floor above shares."""
