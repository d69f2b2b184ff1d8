# Nothing in here needs types: compiled, it is quicker as it stands.
