"""PostgreSQL: connections, schema, locks, leases, the request budget. The only importer of SQLAlchemy and asyncpg."""
