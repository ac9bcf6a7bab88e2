"""PostgreSQL: connections, schema, locks, leases and the rate budget. The only importer of SQLAlchemy and asyncpg."""
