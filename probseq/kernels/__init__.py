"""Fast recursions on plain arrays: they know nothing of emissions by name, estimators or labels."""
