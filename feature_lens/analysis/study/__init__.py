"""Studies read: their tables, what they say in sentences, and their figures."""
