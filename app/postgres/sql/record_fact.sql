-- Note a fact of which the application learns. Only this function writes event_facts, in the transaction of the fact. The
-- worker makes events of it (app/events/). Before the first fill has ended nothing is noted. A transaction that still
-- saw no end of the fill is waited for, see docs/decisions/0052-number-events-after-their-transaction.md.
create or replace function record_fact(
    kind text, subscription_id text, customer_id text, product_id text, source text, operation_id text, data jsonb)
returns void language plpgsql as $$
begin
    insert into event_facts (kind, subscription_id, customer_id, product_id, source, operation_id, data)
    select $1, $2, $3, $4, $5, $6, $7 where exists (select from account where filled_at is not null);
end $$;

-- Return the source of a change: `api` for an operation of the service, `reconcile` if a running reconcile has found it,
-- otherwise `dashboard`.
create or replace function source_of_change(operation_id text, object_id text) returns text language plpgsql as $$
declare
    scan record;
begin
    if operation_id is not null then
        return 'api';
    end if;
    select s.id, s.finished_at, s.dry_run into scan from list_scans s where s.purpose = 'reconcile'
    order by s.id desc limit 1;
    if scan.id is not null and scan.finished_at is null and not scan.dry_run and exists (
        select from list_scan_findings f where f.scan_id = scan.id and f.object_id = $2
          and (f.outcome is null or f.finding = 'missing'))
    then
        return 'reconcile';
    end if;
    return 'dashboard';
end $$;
