"""Postgres: the mirror of Stripe's objects and Coseat's own records. The only importer of SQLAlchemy and asyncpg."""
