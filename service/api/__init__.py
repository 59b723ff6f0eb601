"""One thin router a resource: parse → call → respond."""
