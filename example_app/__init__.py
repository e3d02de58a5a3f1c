"""A small peer-review service: what an application on reviewpoint_db looks like."""
