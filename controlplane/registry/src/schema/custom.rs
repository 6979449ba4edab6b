//! A custom resource's OpenAPI schema as an arena of its own.
