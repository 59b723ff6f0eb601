"""The records of exports: what was asked, how it went, what was proved."""
