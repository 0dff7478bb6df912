"""The link's configuration: a schema, YAML profiles, and errors that name key, value and remedy."""
