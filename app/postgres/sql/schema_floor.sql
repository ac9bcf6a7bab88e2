-- One row: the oldest schema number whose release may still run here. Only a migration that takes something away from
-- older releases raises it. It belongs to the chain of migrations, as alembic_version does, and not to the schema that
-- is compared before an unreleased database is stamped.
create table if not exists schema_floor (
    single boolean not null default true,
    number integer not null,
    constraint pk_schema_floor primary key (single)
);

insert into schema_floor (number) values (10) on conflict (single) do nothing;
