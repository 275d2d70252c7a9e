"""Settings of a program from its file, environment and flags: `values` reads one, `schema` all, `wording` explains."""
