"""Pages for people, rendered by the service itself."""
