"""Programs around the course."""
