"""One folder for each kind of database: how it compares, builds text, is read and described."""
