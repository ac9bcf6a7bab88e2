-- One row: the number of the oldest release that may run on this schema. Only a migration that removes what older
-- releases use raises it. Like alembic_version, the table belongs to the chain of migrations. It is not compared when
-- an unreleased database is stamped.
create table if not exists schema_floor (
    single boolean not null default true,
    number integer not null,
    constraint pk_schema_floor primary key (single)
);

insert into schema_floor (number) values (10) on conflict (single) do nothing;
