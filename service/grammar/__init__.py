"""The read grammar: a query string becomes a SELECT. Pure.

``query`` holds the whole; ``selection``, ``filters``, ``logic``, ``ordering``, ``cursor`` and
``keyset`` are its parts; ``names`` and ``scanner`` are what they are read with.
"""
