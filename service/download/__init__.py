"""Files from disk and downloads from upstreams."""
