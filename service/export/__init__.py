"""A SELECT becomes finished bytes: lane → frame → compress → chunk, counted and digested."""
