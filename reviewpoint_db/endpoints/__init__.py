"""The routes below `/db`, as functions without a framework: a database in, a `Reply` out."""
