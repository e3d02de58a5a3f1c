"""A database layer for Litestar, Starlette and FastAPI that is right by default."""
